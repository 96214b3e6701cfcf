"""Shared by the tests of what joins the stages: every network is exported once for all of them."""

import pytest

from featurecache.extract.engines import choice
from featurecache.extract.engines.graph_store import GraphFolder


@pytest.fixture(scope="session", autouse=True)
def judged_once(shared_folder):
    """The engines' own judgement of a network, made for the first cache that asks: an export takes five seconds.

    How a network is judged, and what a cache keeps of it, is shown by the tests of the engines.
    """
    judge, graphs = choice.judge, GraphFolder(shared_folder)

    def judge_once(source, batch_size):
        identity = choice.full_identity(source, batch_size)
        found = graphs.find(identity)
        if found is None:
            found = judge(source, batch_size)
            graphs.keep(identity, *found)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choice, "judge", judge_once)
        yield
