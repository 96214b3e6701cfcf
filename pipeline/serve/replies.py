"""Responses of the service, and the refusal of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# For all responses: nothing is kept by a browser, guessed from content, or embedded elsewhere.
SAFE_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
JSON = "application/json"


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Any, status: int = 200) -> Reply:
        """A response in JSON."""
        return cls(status, json.dumps(values).encode())

    def messages(self, *, with_body: bool) -> list[dict[str, Any]]:
        """The two messages of ASGI."""
        headers = {"content-type": self.kind, "content-length": str(len(self.body)), **SAFE_HEADERS, **self.headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        return [
            {"type": "http.response.start", "status": self.status, "headers": raw},
            {"type": "http.response.body", "body": self.body if with_body else b""},
        ]


class Refused(Exception):
    """A request that is not answered; the message says why, and what would be."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})

    def reply(self) -> Reply:
        """The response."""
        return Reply(self.status, json.dumps({"error": self.reason}).encode(), headers=self.headers)


def busy(seconds: int) -> Refused:
    """The refusal of a request for which there is no room now."""
    return Refused(
        429,
        f"More images are waiting than the service takes: try again in {seconds} s.",
        {"retry-after": str(seconds)},
    )


def stopping() -> Refused:
    """The refusal of a request that comes when the service is being stopped."""
    return Refused(503, "The service is being stopped.", {"connection": "close", "retry-after": "2"})
