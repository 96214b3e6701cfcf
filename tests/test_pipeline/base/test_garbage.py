"""The search for cyclic garbage is on again after every pause, also one inside another or ended by an error."""

from __future__ import annotations

import gc

import pytest

from featurecache.base.garbage import no_garbage_search, older_objects_apart


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


class Cycle:
    """An object that only a search frees; `freed` notes that it was."""

    def __init__(self, freed: list[str], name: str) -> None:
        self.itself, self.freed, self.name = self, freed, name

    def __del__(self) -> None:
        self.freed.append(self.name)


@pytest.fixture
def thawed():
    """No object is set apart, as the suite does with its own."""
    was_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    yield
    if was_frozen:
        gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_older_objects_are_searched_once_and_newer_ones_always():
    freed: list[str] = []
    before = Cycle(freed, "garbage before")
    stays = Cycle(freed, "garbage of older objects")
    del before
    with older_objects_apart(searched=True):
        assert freed == ["garbage before"]
        newer = Cycle(freed, "garbage of newer objects")
        del newer, stays
        gc.collect()
        assert freed[1:] == ["garbage of newer objects"]
    gc.collect()
    assert freed[2:] == ["garbage of older objects"]
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("thawed")
def test_objects_that_were_set_apart_before_stay_so():
    gc.freeze()
    try:
        with pytest.raises(KeyError), older_objects_apart(searched=False):
            raise KeyError
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
