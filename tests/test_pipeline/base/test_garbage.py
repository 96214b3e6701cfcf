"""The search for cyclic garbage is on again after every pause, also one inside another or ended by an error."""

from __future__ import annotations

import gc

import pytest

from featurecache.base.garbage import no_garbage_search


def test_the_search_is_off_inside_and_on_again_outside():
    with no_garbage_search():
        with no_garbage_search():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_the_pause():
    with pytest.raises(KeyError), no_garbage_search():
        raise KeyError
    assert gc.isenabled()


def test_a_search_that_the_user_has_turned_off_stays_off():
    gc.disable()
    try:
        with no_garbage_search():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
