"""Shared by all tests: small real images, a cache filled once, and skips that CI does not forgive."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image

# Before torch is loaded, here and in the processes that tests start: its threads wait for each other by spinning. On
# two cores with other work, 90 images of 64 pixels took two threads 26.9 s of CPU time, and 1.5 s without spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Nothing that is made while tests are collected is garbage: see `pytest_collection_finish`.
gc.disable()

# skops looks for the functions of scipy in all modules that are loaded, which takes seconds behind torch and timm.
# The process that only hands out tests needs none of it.
if "PYTEST_XDIST_WORKER" in os.environ:
    import skops.io  # noqa: F401

# How long an input takes to make says something of the machine, and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# The programs that tests share, also for the processes that they start.
sys.path.append(str(Path(__file__).with_name("tools")))

# What takes the longest comes first, so that processes end at about the same time. The files of one line go to one
# process: its first tests start a fork server (`prepared`), or export networks, and the others find it or them made.
UNITS = (
    ("test_torture.py", "test_stopping.py", "test_hostile_graphs.py", "test_kept_heads.py", "test_bench.py",
     "test_hostile_arrays.py", "test_decode.py", "test_rules.py"),
    ("test_main.py", "test_exits.py", "test_outdated.py", "test_onnx_engine.py", "test_int8.py", "test_int8_cache.py",
     "test_timm_networks.py"),
    ("test_finetune.py",),
    ("test_compact.py",),
    ("test_classify.py",),
    ("test_table.py",),
    ("test_hard_inputs.py",),
    ("test_cutting.py",),
    ("test_intervals.py",),
    ("test_page.py",),
    ("test_training.py",),
    ("test_registry.py",),
    ("test_work_folder.py",),
    ("test_earlier_runs.py",),
    ("test_freezing.py",),
    ("test_extract.py", "test_processes.py"),
    ("test_export.py", "test_parity.py", "test_predict_exported.py", "test_timm_folder.py", "test_torch_program.py"),
)  # fmt: skip
PLACES = {name: (unit, place) for unit, names in enumerate(UNITS) for place, name in enumerate(names)}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: PLACES.get(item.path.name, (len(UNITS), 0)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give whole units to processes, and else whole files."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            unit, _ = PLACES.get(Path(file).name, (None, 0))
            return file if unit is None else f"unit {unit}"

    return Units(config, log)


def pytest_collection_finish():
    """Let garbage collections pass over the modules and tests, which stay to the end, and come rarely."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CI says that everything is installed, a test that skips for want of a package has failed."""
    report = yield
    if report.skipped and os.environ.get("FEATURECACHE_NO_SKIPS") and item.get_closest_marker("needs_package"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be missing: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def short_timing():
    """Engines are timed for a moment only: which one is ahead is no test's matter, and a timing takes all cores."""
    from featurecache.extract.engines import choice

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choice, "SECONDS_PER_ROUND", 0.01)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """No test cuts the power, so nothing waits until the disk has it; `test_work_folder` shows what is synced when."""
    from featurecache.extract.cache import memo

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        patched.setattr(memo, "_SCHEMA", f"PRAGMA synchronous = OFF;\n{memo._SCHEMA}")
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_weights():
    """No test edits a weights file within its time stamp, so none waits for two seconds; `test_weights` shows it."""
    from featurecache.extract.backbones import weights

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weights, "SETTLING_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def fine_time_stamps():
    """Files of tests lie where times are of 10 ms or finer, so one of 50 ms ago has another once it changes again."""
    from featurecache.extract.cache import opening

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "SETTLED_NS", 50_000_000)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_user_folder():
    """No test reads or writes the folder of whoever runs it; `test_user_folder` has one of its own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FEATURECACHE_USER_CACHE", "")
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """One folder for the processes of this test session; what is written into it is written whole."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def judged_once(shared_folder):
    """A context in which a network is exported and judged for the first cache that asks, not for each: five seconds.

    What judges is the engines' own, and their tests show how; a graph is kept as a cache keeps it, in a folder of its
    own, because all but a few graphs of one folder are removed.
    """
    from featurecache.extract.engines import choice
    from featurecache.extract.engines.graph_store import GraphFolder

    compare_engines = choice.compare_engines

    def compare_once(source, batch_size):
        identity = choice.full_identity(source, batch_size)
        folder = shared_folder / f"graph-{sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}"
        with FileLock(f"{folder}.lock"):
            found = GraphFolder(folder).find(identity)
            if found is None:
                found = compare_engines(source, batch_size)
                GraphFolder(folder).save(identity, *found)
        return found

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choice, "compare_engines", compare_once)
            yield

    return patched


@pytest.fixture(scope="session")
def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Scanned digits 0, 1 and 2 of scikit-learn: uint8 (N, 8, 8) and labels (N,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=3, return_X_y=True)
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels


@pytest.fixture(scope="session")
def made_once(shared_folder):
    """Return the folder of a name that all processes share, which the first that asks fills by calling `make` on it."""

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path = shared_folder / name
        with FileLock(shared_folder / f"{name}.lock"):
            if not path.exists():
                make(shared_folder / f"{name}.making")
                (shared_folder / f"{name}.making").rename(path)
        return path

    return folder


@pytest.fixture(scope="session")
def digits_folder(made_once, digit_images) -> Path:
    """90 digits as PNG files in the class folders 0, 1 and 2. Read only: copy it to change it."""

    def write(root: Path) -> None:
        images, labels = digit_images
        for label in range(3):
            (root / "digits" / str(label)).mkdir(parents=True)
            for i in np.flatnonzero(labels == label)[:30]:
                Image.fromarray(images[i]).save(root / "digits" / str(label) / f"{i:03d}.png")

    return made_once("images", write) / "digits"


@pytest.fixture(scope="session")
def filled_cache(made_once, digits_folder, judged_once, tmp_path_factory) -> Path:
    """A cache root with the features of `digits_folder`, extracted by the command line. Read only.

    Each process has a copy of its own: a command that only reads still remembers digests beside the cache, and a folder
    that is written to meanwhile cannot be copied by `cache`.
    """
    from featurecache.cli.main import run

    def extract(root: Path) -> None:
        with judged_once():
            assert run(["extract", str(digits_folder), "--cache", str(root / "cache"), "--quiet"]) == 0

    return Path(shutil.copytree(made_once("features", extract) / "cache", tmp_path_factory.mktemp("filled") / "cache"))


@pytest.fixture
def images(tmp_path, digits_folder) -> Path:
    """A copy of `digits_folder` to change."""
    return Path(shutil.copytree(digits_folder, tmp_path / "digits"))


@pytest.fixture
def cache(tmp_path, filled_cache) -> Path:
    """A copy of `filled_cache` to change."""
    return Path(shutil.copytree(filled_cache, tmp_path / "cache"))


@pytest.fixture(scope="session")
def parsed():
    """Values of the options of a command line, which is not done. Raises click.UsageError."""
    import click

    from featurecache.cli.main import program

    def parse(words) -> dict[str, object]:
        command, context, name = program, click.Context(program, info_name="featurecache"), "featurecache"
        while isinstance(command, click.Group):
            name, command, words = command.resolve_command(context, list(words))
            context = click.Context(command, parent=context, info_name=name)
        return command.make_context(name, list(words), parent=context.parent).params

    return parse
