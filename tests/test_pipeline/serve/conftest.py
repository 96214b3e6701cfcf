"""Fixtures of the service: an application with a model that answers from the bytes of an image."""

import asyncio

import pytest

collect_ignore_glob = []
try:
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_*.py"]
else:
    from serving import FakeModel, respond

    from featurecache.serve.application import Application


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def app(model):
    made = Application(model)
    made.batcher.start()
    yield made
    model.go.set()
    made.batcher.stop()


@pytest.fixture
def ask(app):
    """Send one request to the application."""

    def send(method, path, body=b"", *headers, to=None, pieces=None):
        raw = [(name.encode(), value.encode()) for name, value in headers]
        return asyncio.run(respond(to or app, method, path, body, raw, pieces=pieces))

    return send
