"""Shared by the tests of what joins the stages: every network is exported once for all of them."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _judged_once(judged_once):
    with judged_once():
        yield
