"""Kill an extraction with SIGKILL at random instants, restart it, and compare with a run that nobody disturbed.

Half of the kills come from outside at a random time; the other half from inside, just before or after a random call of
one of the steps that touch the disk: so that decoding, shard writing, renaming, merging, the index and the memo are all
hit. After each kill the cache must verify, at most two unfinished shards (one being written, one collected) may be
lost, and after the restart every vector must be bit-identical to the undisturbed run's.

Then four processes extract the same images into one cache at once while a reader polls it: all must end well, the
reader must never see an error or a wrong row, and every vector must be the undisturbed run's.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from killing import ANY_TIME, Kill, KillPoints, in_a_process, killed, wait_for
from PIL import Image

from featurecache.extract.backbones import weights
from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.cache import compact, snapshot
from featurecache.extract.cache import store as cache_module
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.verify import verify_cache
from featurecache.extract.images import digests
from featurecache.extract.images.read import read_images
from featurecache.extract.job import extract as fill
from featurecache.extract.job import trial, writer
from featurecache.extract.job.request import FeatureRequest

N_IMAGES = 64
N_PROCESSES = 4
BATCH = 4
SHARD_ROWS = 8
# Of eight shards: they are merged at the end.
MOST_SHARDS = 5
# The other files are read once, by the threads that decode them.
FIRST_BLOCK = 8
# A trial of the images that a killed process was decoding, which imports nothing and finds nothing.
TRIAL = "import json, sys; print('begun\\n' + 'decoded\\n' * len(json.load(sys.stdin)), end='')"
BACKBONE, FEATURE_DIM = "squeezenet1_1", 512
SIZE = 64  # small, so that most kills at any time come where something is read or written
PAUSE = 0.01  # seconds between two looks of the reader, which else takes a core from the writers
POINTS = KillPoints(
    decode="featurecache.extract.job.decoding.decoder:decode_picture",
    writer="featurecache.extract.job.writer:Writer._write",
    shard_write="featurecache.extract.cache.shards:_write_file",
    rename="featurecache.base.files:publish",
    flush="featurecache.base.files:flush",
    spec="featurecache.extract.cache.store:FeatureCache._write_spec",
    index="featurecache.extract.cache.store:FeatureCache._write_virtual",
    row_index="featurecache.extract.cache.snapshot:write_row_index",
    merge="featurecache.extract.cache.compact:_merge",
    mark="featurecache.extract.cache.compact:_mark",
    memo="featurecache.extract.cache.memo:Memo._write",
    notes="featurecache.extract.job.in_flight:InFlight.__enter__",
)


def prepare(folder: Path, seed: int, n_images: int) -> None:
    """Write random images and random weights of a small network."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir()
    for i in range(n_images):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / "images" / f"{i:05d}.png")
    torch.manual_seed(seed)
    shapes = build_network(BACKBONE).module.state_dict()
    tensors = {name: torch.randn(tensor.shape) * 0.05 for name, tensor in shapes.items()}
    torch.save(tensors, folder / "weights.pth")


def extract(
    folder: Path, cache: Path, request: FeatureRequest, progress: fill.Progress | None = None
) -> fill.ExtractReport:
    """Fill `cache` with small shards; in whatever process this is."""
    writer.SHARD_BYTES = SHARD_ROWS * FEATURE_DIM * 4 - 1
    compact.MOST_SHARDS = MOST_SHARDS
    snapshot.LEAST_INDEXED_ROWS = 1
    weights.SETTLING_SECONDS = 0.0  # nobody edits the file
    digests.FIRST_BLOCK = FIRST_BLOCK
    trial.command = lambda: [sys.executable, "-c", TRIAL]
    torch.set_num_threads(1)
    # Named, for the quicker engine is another one on a busy machine, and vectors differ in their last bits.
    settings = fill.Settings(batch_size=BATCH, device="cpu", engine="torch")
    return fill.extract_features(read_images(folder / "images"), [request], cache, settings=settings, progress=progress)


class Counting(fill.Silent):
    """Writes down how many images went through, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def extracting(self, done: int, total: int, refused: int) -> None:
        """Keep the last count."""
        self.path.write_text(str(done))


def one_round(
    folder: Path, request: FeatureRequest, reference: np.ndarray, seconds: float | None, kill: Kill
) -> str | None:
    """Start, kill, verify, restart, compare; returns where the kill came, None where the work was done before it."""
    cache, count = folder / "cache", folder / "count"
    shutil.rmtree(cache, ignore_errors=True)
    count.write_text("0")

    def work() -> None:
        POINTS.arm(kill)
        extract(folder, cache, request, Counting(count))

    was_killed = killed(work, seconds)
    check_cache(cache)

    def restart() -> None:
        report = extract(folder, cache, request)
        (folder / "present").write_text(str(report.filled[0].n_present))
        np.save(folder / "vectors.npy", report.filled[0].cache.lookup(report.digests))

    wait_for(restart)
    n_kept = int((folder / "present").read_text())
    # Images that went through the engine wait for their shard, those of an unfinished batch for the engine.
    lost = int(count.read_text() or 0) - n_kept
    assert lost <= SHARD_ROWS + 2 * BATCH, f"{lost} images were lost"
    assert (np.load(folder / "vectors.npy") == reference).all(), "a vector differs from the undisturbed run's"
    check_cache(cache)
    return str(kill) if was_killed else None


def check_cache(cache: Path) -> None:
    """Every shard that is there is whole."""
    for folder in sorted(cache.glob(f"{BACKBONE}-*")):
        report = verify_cache(folder)
        assert not report.damaged, report


def undisturbed(folder: Path, request: FeatureRequest, seed: int, n_images: int) -> tuple[np.ndarray, float]:
    """Vectors of random images that nobody disturbed, and the seconds they took.

    Everything that computes runs in a child: a fork of a process with threads could hang.
    """

    def reference() -> None:
        report = extract(folder, folder / "undisturbed", request)
        np.save(folder / "reference.npy", report.filled[0].cache.lookup(report.digests))

    wait_for(lambda: prepare(folder, seed, n_images))
    started = time.perf_counter()
    wait_for(lambda: POINTS.counting(reference, folder / "calls.json"))
    seconds = time.perf_counter() - started
    POINTS.read_calls(folder / "calls.json")
    vectors = np.load(folder / "reference.npy")
    assert vectors.shape == (n_images, FEATURE_DIM)
    assert len(np.unique(vectors, axis=0)) == n_images
    return vectors, seconds


def torture(rounds: int, seed: int = 0) -> Counter[str]:
    """That many kills; how often they came where. Raises AssertionError at the first that does harm."""
    rng = random.Random(seed)
    where: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = FeatureRequest(BACKBONE, weights=str(folder / "weights.pth"), size=SIZE)
        vectors, seconds = undisturbed(folder, request, seed, N_IMAGES)
        for kill in POINTS.draw(rng):
            if where.total() >= rounds:
                break
            moment = rng.uniform(0, seconds) if kill.point == ANY_TIME else None
            place = one_round(folder, request, vectors, moment, kill)
            where.update([place] if place else [])
            print(f"\r{where.total()} of {rounds} extractions killed", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return where


def crowd(n_images: int, seed: int = 0) -> int:
    """Four processes on the same images, and a reader; how often the reader looked. Raises AssertionError on harm."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = FeatureRequest(BACKBONE, weights=str(folder / "weights.pth"), size=SIZE)
        vectors, _ = undisturbed(folder, request, seed, n_images)
        cache = folder / "cache"
        pids = [in_a_process(lambda: extract(folder, cache, request)) for _ in range(N_PROCESSES)]
        wait_for(lambda: poll(folder, cache, pids, vectors))
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        assert statuses == [0] * N_PROCESSES, f"extractors ended with {statuses}"
        check_cache(cache)
        wait_for(lambda: compare(folder, cache, vectors, complete=True))
        return int((folder / "looks").read_text())


def poll(folder: Path, cache: Path, pids: list[int], vectors: np.ndarray) -> None:
    """Read everything that is served, again and again, while one of the processes runs."""
    looks = 0
    while any(is_running(pid) for pid in pids):
        compare(folder, cache, vectors, complete=False)
        looks += 1
        (folder / "looks").write_text(str(looks))
        time.sleep(PAUSE)


def is_running(pid: int) -> bool:
    """Whether a process is still at work: an ended one that nobody waited for has the state Z."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"


def compare(folder: Path, cache_root: Path, vectors: np.ndarray, *, complete: bool) -> None:
    """Every row that the cache serves is the undisturbed run's; `complete`: and none is missing."""
    specs = [spec for path in cache_root.glob(f"{BACKBONE}-*") if (spec := cache_module.read_spec(path)) is not None]
    if not specs:
        return
    found = cache_module.FeatureCache(cache_root, specs[0])
    images = sorted((folder / "images").iterdir())
    digests = np.stack([np.frombuffer(image_digest(path.read_bytes()), dtype=np.uint8) for path in images])
    there = ~found.missing(digests)
    assert there.all() or not complete, f"{(~there).sum()} rows are missing"
    assert (found.lookup(digests[there]) == vectors[there]).all(), "a row differs from the undisturbed run's"
