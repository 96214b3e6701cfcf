"""Chunks of images become vectors in order, in lanes on a CPU and behind decoders on a GPU, played by a toy."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images import read_ahead
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job import compute
from featurecache.extract.job.compute import compute_vectors
from featurecache.extract.job.plan import Group

N = 23
SPEC = TransformSpec(8, 8, "bilinear", True, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class MeanEngine:
    """The mean of every image, in as many lanes and on whatever device is asked for; notes what it was given."""

    name, precision, reason = "toy", "fp32", "a toy"

    def __init__(self, device: str, n_lanes: int, batch_size: int) -> None:
        self.device, self.n_lanes, self.batch_size = device, n_lanes, batch_size
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self._at_once, self.most_at_once = 0, 0
        self._lock = threading.Lock()

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.sizes.append(len(batch))
            self.threads.add(threading.current_thread().name)
        found = batch.mean((1, 2, 3), dtype=np.float64)[:, None].astype(np.float32)
        with self._lock:
            self._at_once -= 1
        return found

    def allow_lanes(self, n_lanes: int) -> None:
        self.allowed = n_lanes


class ToyGroup(Group):
    """A group without plans: it misses what it is told to."""

    def __init__(self, engine: MeanEngine, missing: set[bytes], *, decode: str = "full") -> None:
        super().__init__({})
        self.engine, self.missing, self.decode = engine, missing, decode

    transform = geometry = SPEC
    view = None
    levels = "full"

    @property
    def at_least(self) -> int | None:
        return None

    def misses(self, digest: bytes) -> bool:
        return digest in self.missing


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[tuple[bytes, Sample]]:
    """Grey images, the i-th of grey 10 i; two of them broken."""
    folder = tmp_path_factory.mktemp("greys")
    for i in range(N):
        Image.new("L", (8, 8), 10 * i).save(folder / f"{i:02d}.png")
    for i in (5, 17):
        (folder / f"{i:02d}.png").write_bytes(b"no image " + bytes([i]))
    paths = sorted(folder.iterdir())
    return [(image_digest(path.read_bytes()), Sample(str(path), path.name)) for path in paths]


def every(items: list[tuple[bytes, Sample]]) -> set[bytes]:
    return {digest for digest, _ in items}


@pytest.mark.parametrize(
    ("device", "n_lanes", "batch_size"),
    [("cpu", 1, 4), ("cpu", 2, 4), ("cpu", 3, 1), ("cpu", 2, 64), ("cuda", 2, 4), ("cuda", 2, 64), ("mps", 1, 5)],
)
def test_every_sound_image_gets_its_vector_in_order(items, device, n_lanes, batch_size):
    engine = MeanEngine(device, n_lanes, batch_size)
    chunks = list(compute_vectors(items, [ToyGroup(engine, every(items))], max_pixels=100))
    assert [item.name for chunk in chunks for item in chunk.decoded] == [sample.name for _, sample in items]
    refused = [item.name for chunk in chunks for item in chunk.decoded if item.refusal]
    assert refused == ["05.png", "17.png"]
    passed = [each for chunk in chunks for each in chunk.vectors]
    found = {name: row[0] for each in passed for (_, name), row in zip(each.keys, each.vectors, strict=True)}
    assert found == {f"{i:02d}.png": 10.0 * i for i in range(N) if i not in (5, 17)}
    assert engine.most_at_once <= n_lanes
    assert max(engine.sizes) <= batch_size


def test_networks_run_in_threads_of_their_own_and_none_is_left(items):
    engine = MeanEngine("cpu", 2, 4)
    list(compute_vectors(items, [ToyGroup(engine, every(items))], max_pixels=100))
    assert all(name.startswith("ahead") for name in engine.threads)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "decode", "read"))]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_stopping_early_leaves_no_thread_behind(items, device):
    computed = compute_vectors(items, [ToyGroup(MeanEngine(device, 2, 2), every(items))], max_pixels=100)
    next(computed)
    computed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "decode", "read"))]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_of_the_network_comes_where_its_vectors_would_have_come(items, device):
    class Failing(MeanEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            if batch.mean() > 100:
                raise RuntimeError("too bright")
            return super().run(batch)

    computed = compute_vectors(items, [ToyGroup(Failing(device, 2, 2), every(items))], max_pixels=100)
    names = []
    with pytest.raises(RuntimeError, match="too bright"):
        names += [item.name for chunk in computed for item in chunk.decoded]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "decode", "read"))]


def test_images_that_the_same_networks_miss_share_a_batch(items):
    """Every other image is missed by the second network alone: both see full batches, not half-empty ones."""
    first, second = MeanEngine("cpu", 1, 4), MeanEngine("cpu", 1, 4)
    some = {digest for digest, sample in items if int(Path(sample.path).stem) % 2}
    groups = [ToyGroup(first, some), ToyGroup(second, every(items))]
    chunks = list(compute_vectors(items, groups, max_pixels=100))
    assert sum(first.sizes) == 9
    assert sum(second.sizes) == N - 2
    assert len(first.sizes) <= 4
    assert len([c for c in chunks if c.decoded]) == -(-N // 4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_slow_image_stops_no_other_and_comes_in_its_place(items, monkeypatch, device):
    monkeypatch.setattr(compute, "count_cores", lambda: 2)
    decode, rest = compute.Decoder.decode, threading.Event()

    def waiting(decoder, item, *given):
        if item == items[0]:
            assert rest.wait(timeout=20)
        if item == items[-1]:
            rest.set()
        return decode(decoder, item, *given)

    monkeypatch.setattr(compute.Decoder, "decode", waiting)
    chunks = list(compute_vectors(items, [ToyGroup(MeanEngine(device, 2, 1), every(items))], max_pixels=100))
    assert [item.name for chunk in chunks for item in chunk.decoded] == [sample.name for _, sample in items]


def test_more_files_are_read_at_once_than_there_are_lanes_where_the_disk_is_slow(items, monkeypatch):
    monkeypatch.setattr(compute, "SLOW_S", 0.0)
    read_hashed, reading, n = read_ahead.read_hashed, threading.Barrier(6), iter(range(N))

    def slow(path):
        if next(n) < 6:
            reading.wait(timeout=20)
        return read_hashed(path)

    monkeypatch.setattr(read_ahead, "read_hashed", slow)
    chunks = list(compute_vectors(items, [ToyGroup(MeanEngine("cpu", 2, 1), every(items))], max_pixels=100))
    assert not reading.broken
    assert sum(not item.refusal for chunk in chunks for item in chunk.decoded) == N - 2


def test_an_engine_with_fewer_lanes_gets_those_of_the_call(items):
    """One core for it, while all other lanes wait for it, would be slower than one engine after the other."""
    few, many = MeanEngine("cpu", 1, 2), MeanEngine("cpu", 3, 2)
    list(compute_vectors(items, [ToyGroup(few, every(items)), ToyGroup(many, every(items))], max_pixels=100))
    assert few.allowed == 3
    assert not hasattr(many, "allowed")


def test_groups_of_other_sizes_have_pixels_of_their_own_and_those_of_one_size_share_them(items):
    seen: dict[str, list[np.ndarray]] = {}

    class Keeping(MeanEngine):
        def __init__(self, name: str) -> None:
            super().__init__("cpu", 1, 64)
            self.kept = seen.setdefault(name, [])

        def run(self, batch: np.ndarray) -> np.ndarray:
            self.kept.append(batch)
            return super().run(batch)

    groups = [ToyGroup(Keeping(name), every(items)) for name in ("one", "same", "small")]
    small = replace(SPEC, resize=4, crop=4)
    groups[2].transform = groups[2].geometry = small
    list(compute_vectors(items, groups, max_pixels=100))
    (one,), (same,), (other,) = seen["one"], seen["same"], seen["small"]
    assert np.array_equal(one, same)
    assert one.shape == (N - 2, 3, 8, 8)
    assert other.shape == (N - 2, 3, 4, 4)
    assert np.array_equal(one[:, :, 0, 0], other[:, :, 0, 0])


def test_a_file_that_changed_since_it_was_hashed_is_refused(items):
    wrong = [(bytes(32), items[0][1])]
    (chunk,) = compute_vectors(wrong, [ToyGroup(MeanEngine("cpu", 1, 1), {bytes(32)})], max_pixels=100)
    assert chunk.decoded[0].refusal == "it changed while the run was going on; run extract again"
    assert not chunk.decoded[0].is_lasting
    assert chunk.vectors == []


@pytest.mark.parametrize(("n_lanes", "inside"), [(2, {1}), (1, {2})])
def test_lanes_share_the_cores_and_torch_starts_no_more_threads_than_that(items, monkeypatch, n_lanes, inside):
    monkeypatch.setattr(compute, "count_cores", lambda: 2)
    seen: set[int] = set()

    class Noting(MeanEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            seen.add(torch.get_num_threads())
            return super().run(batch)

    before = torch.get_num_threads()
    group = ToyGroup(Noting("cpu", n_lanes, 4), every(items))
    list(compute_vectors(items, [group], max_pixels=10**6))
    assert seen == inside
    assert torch.get_num_threads() == before


def test_decoders_have_one_thread_each(items, monkeypatch):
    monkeypatch.setattr(compute, "count_cores", lambda: 2)
    decode, seen = compute.Decoder.decode, set()

    def noting(*given):
        seen.add(torch.get_num_threads())
        return decode(*given)

    monkeypatch.setattr(compute.Decoder, "decode", noting)
    for device in ("cpu", "toy"):
        list(compute_vectors(items, [ToyGroup(MeanEngine(device, 1, 4), every(items))], max_pixels=10**6))
    assert seen == {1}


def test_a_large_file_that_is_edited_while_it_is_decoded_is_not_taken_for_what_was_hashed(tmp_path, monkeypatch):
    from featurecache.extract.images import sources

    monkeypatch.setattr(sources, "WHOLE_BYTES", 10)
    path = tmp_path / "a.bin"
    path.write_bytes(b"before" * 9)
    with sources.open_hashed(path) as file:
        assert file.is_as_hashed()
        with path.open("r+b") as other:
            other.write(b"after!")
        assert not file.is_as_hashed()


def test_an_error_of_the_disk_is_no_fault_of_the_image():
    import errno
    import io

    from featurecache.extract.images.decode import decode_image

    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        decode_image(Failing(b"x" * 100))
