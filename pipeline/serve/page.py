"""The page for people: one document that asks nothing of another host."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from featurecache.serve.replies import Reply

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> Reply:
    """Return the page, with a policy by which a browser runs its own script alone and asks this host alone."""
    folder = files("featurecache.serve")
    parts = {name: (folder / f"page.{kind}").read_text("utf-8") for name, kind in (("script", "js"), ("style", "css"))}
    text = (folder / "page.html").read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"/* {name} */", part)
    policy = POLICY.format(**{name: _digest(part) for name, part in parts.items()})
    return Reply(200, text.encode(), "text/html; charset=utf-8", {"content-security-policy": policy})


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
