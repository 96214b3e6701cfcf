"""The paths of the service: labels of images, refusals that say why, and no request without a response."""

from __future__ import annotations

import asyncio
import json
import re

import numpy as np
import pytest
from serving import FakeModel, form, respond

from featurecache.base.errors import UsageError
from featurecache.runs.split_list import ListedImage
from featurecache.serve.access import Access
from featurecache.serve.application import Application
from featurecache.serve.limits import Limits
from featurecache.serve.nearest import Neighbours

CAT, DOG = b"\x01 an image", b"\xf0 another"


def test_the_bytes_of_an_image_get_its_label_with_every_digit(ask):
    found = ask("POST", "/predict", DOG)
    assert found.status == 200
    p = 0xF0 / 256 + 1 / 3000
    assert found.json == {
        "head": "logistic on pixels",
        "images": [
            {
                "name": "",
                "label": "dog",
                "probability": p,
                "probabilities": {"cat": 1 - p, "dog": p},
                "nearest": [],
            }
        ],
        "refused": [],
    }


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", ""])
def test_a_body_is_an_image_whatever_its_type_says_but_one_that_says_otherwise(ask, kind):
    assert ask("POST", "/predict", CAT, ("content-type", kind)).json["images"][0]["label"] == "cat"


def test_a_form_has_several_images_and_those_that_are_none_are_listed(ask):
    body, kind = form(
        ("a.jpg", CAT), ("<b>.png", b"bad"), ("ü\udcff.jpg".encode("utf-8", "surrogateescape").decode("latin-1"), DOG)
    )
    found = ask("POST", "/predict?top=1", body, ("content-type", kind)).json
    assert next((each["name"], each["label"], len(each["probabilities"])) for each in found["images"]) == (
        "a.jpg",
        "cat",
        1,
    )
    assert len(found["images"]) == 2
    assert found["refused"] == [{"name": "<b>.png", "reason": "no image format that can be read"}]


def test_the_largest_probabilities_come_first(ask):
    assert list(ask("POST", "/predict?top=1", DOG).json["images"][0]["probabilities"]) == ["dog"]


FORM_TYPE = form()[1]
REFUSED = {
    "no body": ("POST", "/predict", b"", (), 400),
    "no image": ("POST", "/predict", b"bad", (), 422),
    "json": ("POST", "/predict", b"{}", (("content-type", "application/json"),), 415),
    "text": ("POST", "/predict", b"hello", (("content-type", "text/plain"),), 415),
    "another form": ("POST", "/predict", b"hello", (("content-type", "multipart/mixed; boundary=x"),), 415),
    "no boundary": ("POST", "/predict", b"hello", (("content-type", "multipart/form-data"),), 400),
    "a damaged form": ("POST", "/predict", b"hello", (("content-type", FORM_TYPE),), 400),
    "half a form": ("POST", "/predict", form(("a", CAT))[0][:-9], (("content-type", FORM_TYPE),), 400),
    "an empty form": ("POST", "/predict", b"--xyz--\r\n", (("content-type", FORM_TYPE),), 400),
    "an empty file": ("POST", "/predict", form(("a", b""))[0], (("content-type", FORM_TYPE),), 400),
    "a large image": ("POST", "/predict", b"x" * 1001, (), 413),
    "a large file": ("POST", "/predict", form(("a", b"x" * 1001))[0], (("content-type", FORM_TYPE),), 413),
    "large by its length": ("POST", "/predict", b"x", (("content-length", "1001"),), 413),
    "a length that is none": ("POST", "/predict", b"x", (("content-length", "-1"),), 400),
    "two lengths": ("POST", "/predict", b"x", (("content-length", "1"), ("content-length", "2")), 400),
    "many files": ("POST", "/predict", form(*[("a", CAT)] * 5)[0], (("content-type", FORM_TYPE),), 413),
    "top": ("POST", "/predict?top=-1", CAT, (), 422),
    "nearest": ("POST", "/predict?nearest=100", CAT, (), 422),
    "another path": ("GET", "/etc/passwd", b"", (), 404),
    "above": ("GET", "/../../etc/passwd", b"", (), 404),
    "another method": ("DELETE", "/predict", b"", (), 405),
    "a foreign host": ("GET", "/health", b"", (("host", "evil.example:8000"),), 403),
    "a host that is none": ("GET", "/health", b"", (("host", "[::1"),), 400),
    "no host": ("GET", "/health", b"", (("host", ""),), 400),
    "a page of another site": ("POST", "/predict", CAT, (("origin", "https://evil.example"),), 403),
    "a page without a site": ("POST", "/predict", CAT, (("origin", "null"),), 403),
    "a thumbnail": ("GET", "/training/0/thumbnail", b"", (), 404),
    "a path as a thumbnail": ("GET", "/training/../../etc/passwd/thumbnail", b"", (), 404),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_with_a_sentence(case, model):
    method, path, body, headers, status = REFUSED[case]
    app = Application(model, limits=Limits(image_bytes=1000, request_bytes=4000, images=4, waiting=8))
    app.batcher.start()
    raw = [(name.encode(), value.encode()) for name, value in headers]
    found = asyncio.run(respond(app, method, path, body, raw))
    app.batcher.stop()
    assert found.status == status
    assert re.fullmatch(r"[A-Z'].+\.", found.json["error"]), found.json
    assert app.metrics.value(f'featurecache_requests_total{{status="{status}"}}') == 1
    assert app.memory.used == 0


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.2:80", "[::1]:8000", "photos.lan"]
)
def test_hosts_of_this_machine_and_allowed_ones_are_answered(model, host):
    app = Application(model, access=Access(allowed=("photos.lan",)))
    assert asyncio.run(respond(app, "GET", "/health", headers=[(b"host", host.encode())])).json["status"] == "ok"


def test_beyond_the_machine_a_token_is_needed(model):
    with pytest.raises(UsageError, match="requests need a token: set FEATURECACHE_TOKEN"):
        Access(host="0.0.0.0")
    with pytest.raises(UsageError, match="at least 16"):
        Access(token="secret")
    app = Application(model, access=Access(host="0.0.0.0", token="a-token-of-24-characters"))
    app.batcher.start()

    def status(path, *headers, method="GET", body=b""):
        raw = [(b"host", b"192.168.1.7:8000"), *headers]
        return asyncio.run(respond(app, method, path, body, raw)).status

    assert [status(path) for path in ("/", "/health", "/openapi.json")] == [200] * 3
    assert [status(path) for path in ("/metrics", "/model", "/training/0/thumbnail")] == [401] * 3
    assert status("/predict", method="POST", body=CAT) == 401
    for wrong in (b"Bearer another", b"a-token-of-24-characters", b"Basic a-token-of-24-characters", b"Bearer \xff"):
        assert status("/model", (b"authorization", wrong)) == 401
    assert status("/model", (b"authorization", b"bearer a-token-of-24-characters")) == 200
    app.batcher.stop()


def test_a_body_that_does_not_come_is_refused_in_time(model):
    app = Application(model, limits=Limits(seconds=0.01))
    found = asyncio.run(respond(app, "POST", "/predict", pieces=[b"half", None]))
    assert found.status == 408
    assert found.headers["connection"] == "close"
    assert app.memory.used == 0


def test_a_client_that_goes_gets_no_response_and_holds_no_memory(app):
    assert asyncio.run(respond(app, "POST", "/predict", pieces=[])) is None
    assert (app.memory.used, app.n_open) == (0, 0)


def test_when_too_many_wait_the_next_is_refused_with_when_to_come_again(model):
    app = Application(model, limits=Limits(waiting=2, images=1))
    model.go.clear()
    app.batcher.start()

    async def many():
        first = asyncio.ensure_future(respond(app, "POST", "/predict", CAT))
        await asyncio.get_running_loop().run_in_executor(None, model.began.wait)
        others = [asyncio.ensure_future(respond(app, "POST", "/predict", CAT)) for _ in range(5)]
        done, waiting = await asyncio.wait(others, timeout=5, return_when="FIRST_COMPLETED")
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, timeout=5, return_when="FIRST_COMPLETED")
            done |= more
        refused = [each.result() for each in done]
        model.go.set()
        return refused, [each.status for each in await asyncio.gather(first, *waiting)]

    refused, answered = asyncio.run(many())
    app.batcher.stop()
    assert [each.status for each in refused] == [429] * 3
    assert [each.headers["retry-after"] for each in refused] == ["1"] * 3
    assert answered == [200] * 3


def test_requests_hold_a_bounded_memory(model):
    app = Application(model, limits=Limits(image_bytes=1000, request_bytes=1000, images=1))

    async def many():
        half = [asyncio.ensure_future(respond(app, "POST", "/predict", pieces=[b"x" * 990, None])) for _ in range(4)]
        await asyncio.sleep(0)
        late = await respond(app, "POST", "/predict", pieces=[b"x" * 990, b""])
        for each in half:
            each.cancel()
        await asyncio.gather(*half, return_exceptions=True)
        return late

    assert asyncio.run(many()).status == 429
    assert app.memory.used == 0


def test_an_answer_that_is_not_ready_in_time_is_refused(model):
    app = Application(model, limits=Limits(seconds=0.05))
    model.go.clear()
    app.batcher.start()

    async def two():
        first = asyncio.ensure_future(respond(app, "POST", "/predict", CAT))
        await asyncio.get_running_loop().run_in_executor(None, model.began.wait)
        second = asyncio.ensure_future(respond(app, "POST", "/predict", CAT))
        while not app.batcher.n_waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0.06)
        model.go.set()
        return [each.status for each in await asyncio.gather(first, second)]

    assert asyncio.run(two()) == [200, 503]
    app.batcher.stop()


def test_an_error_of_the_model_is_a_500_and_the_service_goes_on(ask, caplog):
    found = ask("POST", "/predict", b"crash")
    assert (found.status, found.json["error"]) == (500, "The service failed to answer this request; its log says why.")
    assert "MemoryError: no memory" in caplog.text
    assert ask("POST", "/predict", CAT).status == 200


def test_a_stopping_service_refuses_with_a_closed_connection(app, ask):
    app.is_stopping = True
    found = ask("POST", "/predict", CAT)
    assert (found.status, found.headers["connection"]) == (503, "close")


def neighbours(tmp_path=None, **pictures):
    X = np.array([[1, 1, 1], [240, 240, 240], [239, 240, 240]], np.float32)
    images = [ListedImage(f"{i}.png", label, "train", "0" * 64) for i, label in enumerate(["cat", "dog", "<i>dog"])]
    return Neighbours(X, images, pictures or None)


def test_the_nearest_training_images_come_with_their_exact_distances(model):
    app = Application(model, neighbours=neighbours())
    app.batcher.start()
    found = asyncio.run(respond(app, "POST", "/predict?nearest=2", DOG)).json
    app.batcher.stop()
    assert found["images"][0]["nearest"] == [
        {"id": 1, "label": "dog", "distance": 0.0},
        {"id": 2, "label": "<i>dog", "distance": 1.0},
    ]
    assert asyncio.run(respond(app, "GET", "/model")).json["nearest"] is True


def test_the_model_says_what_there_is(ask):
    found = ask("GET", "/model").json
    assert found["classes"] == ["cat", "dog"]
    assert (found["nearest"], found["thumbnails"]) == (False, False)


def test_a_head_is_answered_without_a_body(ask):
    assert ask("HEAD", "/health").body == b""


def test_counts_are_in_the_format_of_prometheus(app, ask):
    for body in (CAT, DOG, b"bad"):
        ask("POST", "/predict", body)
    text = ask("GET", "/metrics").body.decode()
    assert 'featurecache_requests_total{status="200"} 2\n' in text
    assert 'featurecache_requests_total{status="422"} 1\n' in text
    assert 'featurecache_images_total{outcome="answered"} 2\n' in text
    assert 'featurecache_predict_seconds_bucket{le="+Inf"} 3\nfeaturecache_predict_seconds_sum' in text
    assert re.search(r"^featurecache_resident_memory_bytes [1-9]", text, re.M)
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]+\"\})? [0-9.e+-]+", line), line


def test_the_description_names_every_path_and_every_status(app, ask):
    found = ask("GET", "/openapi.json").json
    assert found["openapi"] == "3.1.0"
    named = {path.replace("{id}/thumbnail", "") for path in found["paths"]}
    assert named == set(app._handlers)
    statuses = set(found["paths"]["/predict"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "403", "405", "408", "413", "415", "422", "429", "500", "503"}
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(found)):
        assert reference in found["components"]["schemas"]


def test_the_page_asks_no_other_host_and_runs_no_other_script(ask):
    found = ask("GET", "/")
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in found.body.decode().replace("http-equiv", "")
    assert (found.headers["x-content-type-options"], found.headers["cache-control"]) == ("nosniff", "no-store")


def test_images_that_wait_are_answered_together_and_lone_ones_at_once(model):
    app = Application(model)
    model.go.clear()
    app.batcher.start()

    async def many():
        first = asyncio.ensure_future(respond(app, "POST", "/predict", CAT))
        await asyncio.get_running_loop().run_in_executor(None, model.began.wait)
        others = [asyncio.ensure_future(respond(app, "POST", "/predict", CAT)) for _ in range(6)]
        while app.batcher.n_waiting < 6:
            await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(many())
    app.batcher.stop()
    app.batcher.join()
    assert model.sizes == [1, 4, 2]


def test_free_lanes_share_what_waits():
    model = FakeModel(n_lanes=2)
    app = Application(model)

    async def go():
        tasks = [asyncio.ensure_future(respond(app, "POST", "/predict", CAT)) for _ in range(4)]
        while app.batcher.n_waiting < 4:
            await asyncio.sleep(0)
        with app.batcher._changed:
            app.batcher.start()
        await asyncio.gather(*tasks)

    asyncio.run(go())
    app.batcher.stop()
    app.batcher.join()
    assert sum(model.sizes) == 4


def test_limits_that_no_request_can_meet_are_refused():
    with pytest.raises(UsageError, match="--max-request-mb"):
        Limits(image_bytes=10, request_bytes=5)
    with pytest.raises(UsageError, match="--queue"):
        Limits(images=10, waiting=5)
