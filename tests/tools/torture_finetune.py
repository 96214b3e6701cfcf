"""Kill a fine-tune with SIGKILL at random instants, resume it, and compare with one that nobody disturbed.

Half of the kills come from outside at a random time, half from inside, just before or after a call that makes maps,
publishes their shards, saves the state of the training or writes the run. After each kill every cache, the one of the
maps too, must verify; resumed, it must come to the same weights to the last bit, and leave no state behind.
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
from killing import ANY_TIME, Kill, KillPoints, check_swept, killed, wait_for
from PIL import Image

from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.cache.verify import verify_cache

BACKBONE, SIZE, PER_CLASS = "squeezenet1_1", "64", 12
NETWORK = ["--backbone", BACKBONE, "--weights", "weights.pth", "--size", SIZE, "--engine", "torch", "--cache", "cache"]
TUNING = ["--unfreeze", "features.12", "--size", SIZE, "--epochs", "2", "--batch-size", "4", "--augment", "flip"]
POINTS = KillPoints(
    maps="featurecache.extract.job.passes:compute_vectors",
    shard="featurecache.extract.cache.shards:_write_file",
    rename="featurecache.base.files:publish",
    flush="featurecache.base.files:flush",
    index="featurecache.extract.cache.store:FeatureCache._write_virtual",
    state="featurecache.finetune.checkpoint:Checkpoint.save",
    forget="featurecache.finetune.checkpoint:Checkpoint.forget",
    weights="featurecache.finetune.write_run:save_weights",
    commit="featurecache.runs.work_folder:commit",
    complete="featurecache.runs.work_folder:complete",
)


def featurecache(*words: str) -> None:
    """Give a command in this process. Raises AssertionError unless it ends well."""
    from featurecache.cli.main import run
    from featurecache.extract.backbones import weights
    from featurecache.finetune import training

    torch.set_num_threads(1)
    weights.SETTLING_SECONDS = 0.0  # nobody edits the file
    training.SAVE_SECONDS = 0.0  # a state after every step: kills are to hit that, too
    assert run([*words, "--quiet"]) == 0


def finetune() -> None:
    """Train the network on, from where an earlier one was stopped."""
    words = ["finetune", "images", "--from", "runs/source", "--cache", "cache", "--out", "runs/tuned", "--resume"]
    featurecache(*words, "--engine", "torch", *TUNING)


def prepare() -> None:
    """Write images of three classes, random weights, and a run to start from."""
    rng = np.random.default_rng(0)
    for number in range(3):
        folder = Path("images") / f"class-{number}"
        folder.mkdir(parents=True)
        for i in range(PER_CLASS):
            pixels = rng.integers(0, 120, (24, 24, 3)) + 50 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    torch.manual_seed(0)
    shapes = build_network(BACKBONE).module.state_dict()
    torch.save({name: torch.randn(tensor.shape) * 0.05 for name, tensor in shapes.items()}, "weights.pth")
    featurecache("run", "images", *NETWORK, "--heads", "ridge", "--out", "runs/source")
    shutil.copytree("cache", "fresh-cache")


def check_caches() -> None:
    """Raise AssertionError where a shard of features or maps is damaged."""
    for folder in sorted(Path("cache").glob(f"{BACKBONE}-*")):
        report = verify_cache(folder)
        assert not report.damaged, report


def one_round(seconds: float | None, kill: Kill, weights: bytes) -> str | None:
    """Start, kill, verify, resume, compare; returns where the kill came, None where the work was done before it."""
    for name in ("cache", "runs/tuned"):
        shutil.rmtree(name, ignore_errors=True)
    shutil.copytree("fresh-cache", "cache")

    def work() -> None:
        POINTS.arm(kill)
        finetune()

    was_killed = killed(work, seconds)
    check_caches()
    wait_for(finetune)
    check_caches()
    assert Path("runs/tuned/weights.safetensors").read_bytes() == weights, "other weights than the undisturbed ones"
    check_swept(Path("runs/tuned"))
    return str(kill) if was_killed else None


def torture(rounds: int, seed: int = 0) -> Counter[str]:
    """That many kills; how often they came where. Raises AssertionError at the first that does harm."""
    rng, where, before = random.Random(seed), Counter[str](), Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            wait_for(prepare)
            started = time.perf_counter()
            wait_for(lambda: POINTS.counting(finetune, Path("calls.json")))
            seconds = time.perf_counter() - started
            POINTS.read_calls(Path("calls.json"))
            weights = Path("runs/tuned/weights.safetensors").read_bytes()
            for kill in POINTS.draw(rng):
                if where.total() >= rounds:
                    break
                moment = rng.uniform(0, seconds) if kill.point == ANY_TIME else None
                place = one_round(moment, kill, weights)
                where.update([place] if place else [])
                print(f"\r{where.total()} of {rounds} fine-tunes killed", end="", file=sys.stderr, flush=True)
        finally:
            os.chdir(before)
    print(file=sys.stderr)
    return where
