"""Shared by the tests of what joins the stages: networks are exported once for all of them, and pages are small."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _judged_once(judged_once):
    with judged_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _small_pages():
    """Reports without the 4.8 MB of the library that draws their figures; `whole_pages` is for tests that need it."""
    from plotly import offline

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(offline, "get_plotlyjs", lambda: "/* plotly */")
        yield


@pytest.fixture(scope="module")
def whole_pages():
    """Reports as users have them."""
    from plotly import offline
    from plotly.offline.offline import get_plotlyjs

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(offline, "get_plotlyjs", get_plotlyjs)
        yield
