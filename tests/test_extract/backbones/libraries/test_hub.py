"""A hub on loopback: what is downloaded and when, and one sentence for everything that goes wrong."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load, save

from featurecache.base.errors import WeightsMissing
from featurecache.extract.backbones.libraries.definitions import library_facts
from featurecache.extract.backbones.libraries.hub import HubFolder, endpoint, hub_cache, shown_endpoint
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.cache.store import SPEC_FILE
from featurecache.extract.images.read import read_images
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

NAME = "hf-hub:org/net"
TOKEN = "hf_secretsecretsecret"
FIRST, SECOND = "a" * 40, "b" * 40


class Hub(ThreadingHTTPServer):
    """Files of one repository by commit, and what is wrong with it.

    fault: "" or one of 401, 404, "cut", "checksum". asked: (method, path, token) of each request.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.main, self.fault = files, FIRST, ""
        self.asked: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(is_head=True)

    def do_GET(self):
        self.answer(is_head=False)

    def answer(self, *, is_head: bool) -> None:
        hub = self.server
        hub.asked.append((self.command, self.path, self.headers.get("Authorization") or ""))
        path = self.path.partition("?")[0]
        if hub.fault in ("401", "404"):
            return self.refuse(int(hub.fault))
        _, org, name, kind, revision, file_name = path.split("/", 5)
        commit = hub.main if revision == "main" else revision
        data = hub.files.get(commit, {}).get(file_name)
        if (org, name, kind) != ("org", "net", "resolve") or data is None:
            return self.refuse(404)
        is_weights = file_name.endswith("safetensors")
        digest = hashlib.sha256(data) if is_weights else hashlib.sha1(f"blob {len(data)}\0".encode() + data)
        etag = digest.hexdigest()
        if hub.fault == "checksum" and is_weights:
            data = bytes([*data[:-1], data[-1] ^ 1])
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        if is_weights:
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data[: len(data) // 2] if hub.fault == "cut" and is_weights else data)
            self.close_connection = hub.fault == "cut"
        return None

    def refuse(self, status: int) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def served(folders) -> dict[str, dict[str, bytes]]:
    """Two commits: the second has other weights."""
    folder, _ = folders("test_resnet")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = {name: tensor * 1.5 for name, tensor in load(first["model.safetensors"]).items()}
    return {FIRST: first, SECOND: {**first, "model.safetensors": save(other)}}


@pytest.fixture
def hub(served, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is an extra")
    server = Hub(served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_pause(monkeypatch):
    """huggingface_hub waits a second before it tries again."""
    import time

    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_the_first_use_downloads_and_the_second_needs_no_network(hub, monkeypatch):
    first = load_backbone(NAME)
    n_asked = len(hub.asked)
    assert {path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET"} == {
        "config.json",
        "model.safetensors",
    }
    assert all(token == f"Bearer {TOKEN}" for _, _, token in hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = load_backbone(NAME)
    assert len(hub.asked) == n_asked
    assert again.weights_digest == first.weights_digest
    assert (again.weights, again.about["commit"]) == ("org/net", FIRST)


def test_a_moved_branch_is_noticed_on_refresh_only(hub):
    folder = HubFolder(NAME, "org/net", "main")
    first = load_backbone(NAME)
    hub.main = SECOND
    assert load_backbone(NAME).weights_digest == first.weights_digest
    assert folder.refresh("config.json") == (FIRST, SECOND)
    moved = load_backbone(NAME)
    assert (moved.about["commit"], moved.weights_digest != first.weights_digest) == (SECOND, True)
    assert load_backbone(f"{NAME}@{FIRST}").weights_digest == first.weights_digest


def test_the_commit_is_kept_where_another_program_moves_the_branch(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_USER_CACHE", str(tmp_path / "user"))
    load_backbone(NAME)
    (hub_cache() / "models--org--net" / "refs" / "main").write_text(SECOND)
    assert HubFolder(NAME, "org/net", "main").commit() == FIRST


FAULTS = {
    "401": "the hub refuses it (401), so it is private, gated or misspelt; accept its conditions on ",
    "404": "the hub has no repository of that name",
    "cut": "its download",
    "checksum": "what was downloaded has another checksum, and was removed",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(hub, no_pause, fault):
    hub.fault = fault
    with pytest.raises(WeightsMissing) as refused:
        load_backbone(NAME)
    message = str(refused.value)
    name = "config.json" if fault.isdecimal() else "model.safetensors"
    assert message.startswith(
        f"hf-hub:org/net needs {name} of org/net, which is not in '{hub_cache()}': {FAULTS[fault]}"
    )
    assert message.endswith(" fetches it where there is a network.")
    assert "`hf download org/net config.json" in message
    # After the configuration the commit is known, and the weights have to be of the same one.
    assert (f" --revision {FIRST}`" in message) == (not fault.isdecimal())
    assert TOKEN not in message
    assert "\n" not in message
    hub.fault = ""
    assert load_backbone(NAME).feature_dim > 0


def test_offline_nothing_is_asked(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="HF_HUB_OFFLINE forbids to fetch it"):
        load_backbone(NAME)
    assert hub.asked == []


def test_a_hub_that_does_not_answer(hub, monkeypatch, no_pause):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:password@127.0.0.1:1")
    with pytest.raises(WeightsMissing) as refused:
        load_backbone(NAME)
    assert "http://127.0.0.1:1 cannot be reached" in str(refused.value)
    assert "password" not in str(refused.value)


def test_a_run_keeps_licence_and_commit_in_its_spec_and_no_token(hub, tmp_path):
    images, cache = tmp_path / "images", tmp_path / "cache"
    images.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(images / "a.png")
    settings = Settings(engine="torch", device="cpu", batch_size=1)
    (first,) = extract_features(read_images(images), [FeatureRequest(NAME)], cache, settings=settings).filled
    spec_file = first.cache.folder / SPEC_FILE
    about = json.loads(spec_file.read_text())["about"]
    assert about == {"license": "apache-2.0", "source": f"{endpoint()}/org/net", "commit": FIRST}
    hub.main = SECOND
    (same,) = extract_features(read_images(images), [FeatureRequest(NAME)], cache, settings=settings).filled
    assert (same.cache.folder, same.n_extracted) == (first.cache.folder, 0)
    refreshing = Settings(engine="torch", device="cpu", batch_size=1, refresh=True)
    (moved,) = extract_features(read_images(images), [FeatureRequest(NAME)], cache, settings=refreshing).filled
    assert (moved.cache.folder != first.cache.folder, moved.n_extracted) == (True, 1)
    written = [path.read_bytes() for path in Path(cache).rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in data for data in written)


def test_another_commit_of_a_default_tag_is_another_question(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--timm--resnet18.a1_in1k" / "refs"
    refs.mkdir(parents=True)
    found = []
    for commit in (FIRST, SECOND):
        (refs / "main").write_text(commit)
        found.append([library_facts(name) for name in ("timm/resnet18", "timm/resnet18.a1_in1k", "timm/resnet1")])
    (untagged, tagged, other), (untagged_after, tagged_after, other_after) = found
    assert (untagged, tagged) != (untagged_after, tagged_after)
    assert untagged == tagged
    assert other == other_after


def test_the_places_are_those_of_the_library(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is an extra")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path(constants.default_home).parent))
    assert hub_cache() == Path(constants.default_cache_path)
    assert endpoint() == constants._HF_DEFAULT_ENDPOINT
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub_cache() == tmp_path
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example/path/")
    assert shown_endpoint() == "https://hub.example/path"
