"""The description of the service for other programs: OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from featurecache.base.versions import installed_version
from featurecache.serve.limits import MOST_NEAREST, MOST_TOP, Limits

REASONS = {
    400: "No body, no Host header, or a damaged form.",
    401: "The token is missing or wrong.",
    403: "The Host header, or the page that asks, is of another host.",
    404: "There is none.",
    405: "The path takes another method.",
    408: "The request was not received in time.",
    413: "More bytes or images than the service takes.",
    415: "A body of a type that is no image.",
    422: "No image that can be read, or a parameter that is none.",
    429: "Too many images are waiting; Retry-After says when to try again.",
    500: "The service failed; its log says why.",
    503: "The service is being stopped, or the answer was not ready in time.",
}
NUMBER, TEXT = {"type": "number"}, {"type": "string"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
HEADED = {
    401: {"WWW-Authenticate": {"schema": TEXT}},
    405: {"Allow": {"schema": TEXT}},
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
}


def document(limits: Limits, *, has_token: bool) -> dict[str, Any]:
    """Return the description of a service with these limits; has_token: whether requests need a token."""
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "featurecache",
            "description": "Labels of images by a trained head.",
            "version": installed_version("featurecache") or "0",
        },
        "paths": {
            "/": {"get": _get("page", "The page for people.", "text/html", TEXT, is_open=True)},
            "/health": {"get": _get("health", "Whether the service answers.", schema=_ref("Health"), is_open=True)},
            "/metrics": {"get": _get("metrics", "Counts in the text format of Prometheus.", "text/plain", TEXT)},
            "/model": {"get": _get("model", "The head, its classes and the limits.", schema=_ref("Model"))},
            "/openapi.json": {"get": _get("description", "This description.", schema={"type": "object"}, is_open=True)},
            "/predict": {"post": _predict(limits)},
            "/training/{id}/thumbnail": {"get": _thumbnail()},
        },
        "components": {"schemas": _schemas()},
    }
    if has_token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _schemas() -> dict[str, Any]:
    refused = _object(name=TEXT, reason=TEXT)
    image = _object(
        name={"type": "string", "description": "Of the file in a form; empty for a body that is an image."},
        label=TEXT,
        probability=SHARE,
        probabilities={"type": "object", "additionalProperties": SHARE},
        nearest=_list(_ref("Nearest")),
    )
    return {
        "Error": {"type": "object", "properties": {"error": TEXT}, "required": ["error"]},
        "Health": _object(status={"const": "ok"}, version=TEXT),
        "Image": image,
        "Model": _object(
            head=TEXT,
            classes=_list(TEXT),
            nearest={"type": "boolean"},
            thumbnails={"type": "boolean"},
            limits=_object(images={"type": "integer"}, image_bytes={"type": "integer"}),
        ),
        "Nearest": _object(id={"type": "integer"}, label=TEXT, distance={"type": "number", "minimum": 0}),
        "Predictions": _object(head=TEXT, images=_list(_ref("Image")), refused=_list(refused)),
        "Refused": refused,
    }


def _responses(*statuses: int) -> dict[str, Any]:
    """Return the responses that are errors; those that any path may have are among them."""
    found: dict[str, Any] = {}
    for status in sorted({400, 403, 405, 500, 503, *statuses}):
        content = {"application/json": {"schema": _ref("Error")}}
        found[str(status)] = {"description": REASONS[status], "content": content}
        if status in HEADED:
            found[str(status)]["headers"] = HEADED[status]
    return found


def _get(
    name: str, what: str, kind: str = "application/json", schema: Any = None, *, is_open: bool = False
) -> dict[str, Any]:
    good = {"description": what, "content": {kind: {"schema": schema}}}
    found: dict[str, Any] = {"operationId": name, "summary": what, "responses": {"200": good}}
    found["responses"] |= _responses(*([] if is_open else [401]))
    return found | ({"security": []} if is_open else {})


def _thumbnail() -> dict[str, Any]:
    found = _get("thumbnail", "A small picture of a training image.", "image/jpeg", {})
    found["responses"] |= _responses(401, 404)
    found["parameters"] = [_parameter("id", "path", {"type": "integer", "minimum": 0}, "Its number in `nearest`.")]
    return found


def _parameter(name: str, place: str, schema: Any, what: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": what}


def _predict(limits: Limits) -> dict[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    form = {
        "schema": {
            "type": "object",
            "properties": {"image": {**files, "maxItems": limits.images}},
            "required": ["image"],
        }
    }
    raw = {"schema": {"type": "string", "format": "binary", "minLength": 1, "maxLength": limits.image_bytes}}
    good = {"description": "Labels.", "content": {"application/json": {"schema": _ref("Predictions")}}}
    whole = {"type": "integer", "minimum": 0}
    return {
        "operationId": "predict",
        "summary": "Label images.",
        "description": "The body is an image file, or a form with one or several; any name of a field is taken.",
        "parameters": [
            _parameter("top", "query", {**whole, "maximum": MOST_TOP}, "Only so many of the largest probabilities."),
            _parameter("nearest", "query", {**whole, "maximum": MOST_NEAREST}, "So many nearest training images."),
        ],
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": raw, "image/*": raw, "multipart/form-data": form},
        },
        "responses": {"200": good, **_responses(401, 408, 413, 415, 422, 429)},
    }
