import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from featurecache.classify.heads.saving.mapped_arrays import DTYPES, METADATA, mapped_arrays

KINDS = [np.dtype(each) for each in DTYPES.values()]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (7, 5), (2, 3, 4)], ids=str)
def test_arrays_are_those_that_the_library_reads(shape, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {kind.str: np.asarray(rng.integers(0, 2, size=shape)).astype(kind) for kind in KINDS}
    save_file(arrays, tmp_path / "arrays", metadata={"by": "a test"})
    found, expected = mapped_arrays(tmp_path / "arrays"), load_file(tmp_path / "arrays")
    assert set(found) == set(expected) and METADATA not in found
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert not array.size or not found[name].flags.writeable
