"""Several GPUs are one engine, whose batches are shared, and TF32 is one setting for all threads; without any GPU."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from featurecache.extract.engines.several_gpus import on_all
from featurecache.extract.engines.torch_settings import SharedSetting


class Gpu:
    name, precision, reason, n_lanes = "torch", "fp32", "torch on cuda:0 in fp32: asked for", 2

    def __init__(self, number: int, everyone: threading.Barrier) -> None:
        self.device, self.batch_size = f"cuda:{number}", 8 - number
        self.number, self.everyone = number, everyone

    def run(self, batch: torch.Tensor) -> np.ndarray:
        self.everyone.wait(timeout=20)
        return np.full((len(batch), 1), self.number, dtype=np.float32)


def test_every_gpu_runs_a_batch_in_each_of_its_lanes():
    everyone = threading.Barrier(6)
    engine = on_all(Gpu(number, everyone) for number in range(3))
    assert (engine.device, engine.n_lanes, engine.batch_size) == ("cuda:all", 6, 6)
    assert engine.reason == "torch on cuda:0 in fp32: asked for, and on 2 more"
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(engine.run, [torch.zeros(1)] * 6))
    assert sorted(int(each[0, 0]) for each in found) == [0, 0, 1, 1, 2, 2]


def test_a_batch_that_fails_leaves_its_gpu_to_the_next():
    engine = on_all(Gpu(number, threading.Barrier(1)) for number in range(2))
    engine._engines[0].run = lambda batch: 1 / 0
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            engine.run(torch.zeros(1))
        assert engine.run(torch.zeros(1))[0, 0] == 1


def test_one_gpu_stays_itself():
    gpu = Gpu(0, threading.Barrier(1))
    assert on_all([gpu]) is gpu


def test_threads_share_a_setting_and_wait_for_another_value():
    applied: list[bool] = []
    setting = SharedSetting(applied.append)
    both, order = threading.Barrier(2), []

    def use(value: bool) -> None:
        with setting.at(value):
            if value:
                both.wait(timeout=20)
            order.append((value, applied[-1]))

    with setting.at(True):
        other = threading.Thread(target=use, args=(False,))
        other.start()
        same = threading.Thread(target=use, args=(True,))
        same.start()
        both.wait(timeout=20)
        same.join()
    other.join()
    assert order == [(True, True), (False, False)]
    assert applied == [True, False]


def test_a_setting_that_others_changed_is_made_again():
    applied: list[bool] = []
    setting = SharedSetting(applied.append)
    for _ in range(2):
        with setting.at(False):
            pass
    assert applied == [False, False]
