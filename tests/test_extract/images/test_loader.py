"""Work goes on ahead in threads, and comes back in order, bounded and without loss."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.extract.images.loader import are_small, load_ahead


@given(items=st.lists(st.integers(), max_size=40), n_threads=st.integers(1, 4), n_ahead=st.integers(1, 50))
@settings(deadline=None, max_examples=30)
def test_results_are_those_of_map(items, n_threads, n_ahead):
    assert list(load_ahead(items, str, n_threads=n_threads, n_ahead=n_ahead)) == [str(item) for item in items]


def test_the_order_is_kept_when_the_first_item_takes_longest():
    others_done = threading.Event()

    def work(item):
        if item == 0:
            assert others_done.wait(30)
        if item == 3:
            others_done.set()
        return item

    assert list(load_ahead(range(4), work, n_threads=2, n_ahead=4)) == [0, 1, 2, 3]


def test_no_more_is_taken_than_the_loop_has_room_for():
    taken = itertools.count()
    results = load_ahead((next(taken) for _ in iter(int, 1)), lambda item: item, n_threads=2, n_ahead=5)
    for expected in range(20):
        assert next(results) == expected
    results.close()
    assert next(taken) == 20 + 5


def test_nothing_is_taken_before_the_first_result_is_asked_for():
    taken = []
    results = load_ahead(iter(lambda: taken.append(1), 1), str, n_threads=1, n_ahead=3)
    results.close()
    assert taken == []


def test_an_error_comes_where_its_result_would_have_come():
    def work(item):
        if item == 2:
            raise KeyError(item)
        return item

    results = load_ahead(range(5), work, n_threads=2, n_ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == []


def test_closing_leaves_no_thread_and_no_work_behind():
    done = []
    results = load_ahead(range(100), done.append, n_threads=1, n_ahead=50)
    next(results)
    results.close()
    n_done = len(done)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    assert n_done < 60
    assert len(done) == n_done


def test_the_work_is_done_in_other_threads():
    names = set(load_ahead(range(8), lambda _: threading.current_thread().name, n_threads=2, n_ahead=8))
    assert threading.current_thread().name not in names
    assert 1 <= len(names) <= 2


def test_files_are_small_by_their_mean_and_not_where_one_is_gone(tmp_path):
    for name, n_bytes in (("a", 100), ("b", 8000), ("c", 9000)):
        (tmp_path / name).write_bytes(bytes(n_bytes))
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert are_small([a, b])
    assert not are_small([a, b, c])
    assert not are_small([a, f"{a} gone"])
    assert not are_small(["\0"])
    assert are_small([])
