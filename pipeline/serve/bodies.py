"""The images in the body of a request: the body itself, or the files of a form (multipart/form-data)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from featurecache.base.text import printable
from featurecache.serve.limits import LEAST_RETRY_SECONDS, Limits
from featurecache.serve.replies import Refused, busy

FORM = "multipart/form-data"
# Bodies of other kinds are taken as an image, whatever they are called: curl calls every body a form.
NO_IMAGES = ("application/json", "multipart/", "text/")
LONGEST_NAME = 200
MOST_PARTS_MORE = 16  # fields of a form that are no files
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class Upload(NamedTuple):
    """An image file as it was sent; name: that of the file in a form, else empty."""

    name: str
    data: bytes


class Memory:
    """The bytes that all requests together hold."""

    def __init__(self, most: int) -> None:
        self._most, self.used = most, 0

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes bytes for a request, until the context ends. It raises Refused where there are too many."""
        taken = 0

        def take(n: int) -> None:
            nonlocal taken
            if self.used + n > self._most:
                raise busy(LEAST_RETRY_SECONDS)
            self.used += n
            taken += n

        try:
            yield take
        finally:
            self.used -= taken


class Disconnected(Exception):
    """The client is gone: nobody waits for a response."""


async def read_uploads(
    headers: Mapping[str, str], receive: Receive, limits: Limits, take: Callable[[int], None], *, seconds: float
) -> list[Upload]:
    """Read a body within the limits, and return its images.

    take: called with the size of each piece. seconds: how long it may take. Raises Refused, Disconnected.
    """
    boundary = boundary_of(headers.get("content-type", ""))
    most = limits.request_bytes if boundary else limits.image_bytes
    check_length(headers, most)
    try:
        async with asyncio.timeout(seconds):
            body = await read_body(receive, most, take)
    except TimeoutError:
        reason = f"The request was not received within {limits.seconds:g} s."
        raise Refused(408, reason, {"connection": "close"}) from None
    if not body:
        raise Refused(400, "The request has no body: send the bytes of an image, or a form with files.")
    if not boundary:
        return [Upload("", body)]
    take(len(body))  # the files are copies
    uploads = read_form(body, boundary, limits)
    if not uploads:
        raise Refused(400, "The form has no files: give each image as a file, such as curl -F image=@photo.jpg.")
    for each in uploads:
        if not each.data:
            raise Refused(400, f"The file '{each.name}' is empty.")
        if len(each.data) > limits.image_bytes:
            raise too_large(limits.image_bytes, f"the file '{each.name}'")
    return uploads


def boundary_of(value: str) -> str:
    """Return the boundary of a form, empty for other types of a body. Raises Refused for those of no image."""
    from python_multipart.multipart import parse_options_header

    raw, options = parse_options_header(value)
    kind = raw.decode("latin-1")
    if kind == FORM:
        boundary = options.get(b"boundary", b"").decode("latin-1")
        if not boundary:
            raise Refused(400, "The Content-Type of a form needs its boundary.")
        return boundary
    if kind.startswith(NO_IMAGES):
        raise Refused(
            415, f"A body of type '{printable(kind)}' is no image: send the bytes of an image file, or {FORM}."
        )
    return ""


def check_length(headers: Mapping[str, str], most: int) -> None:
    """Raise Refused for a Content-Length that is no number, or more than `most` bytes."""
    length = headers.get("content-length")
    if length is None:
        return
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "The Content-Length is not a number.", {"connection": "close"})
    if len(length) > 18 or int(length) > most:
        raise too_large(most)


async def read_body(receive: Receive, most: int, take: Callable[[int], None]) -> bytes:
    """Return a whole body. Raises Refused for more than `most` bytes, Disconnected."""
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise too_large(most)
        take(len(piece))
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def too_large(most: int, what: str = "the body") -> Refused:
    """The refusal of more bytes than are allowed."""
    return Refused(413, f"The service takes at most {most:,} bytes here, and {what} has more.")


class _Form:
    """The files of a form; fields without a file name are passed over."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self._limits, self._n_parts = limits, 0
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        """Return the functions that a parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
        }

    def _begin(self) -> None:
        self._headers, self._data = {}, []
        self._n_parts += 1
        if self._n_parts > self._limits.images + MOST_PARTS_MORE:
            raise Refused(413, f"The form has too many parts: the service takes {self._limits.images} images at once.")

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _end(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        if (name := options.get(b"filename")) is None:
            return
        if len(self.uploads) == self._limits.images:
            raise Refused(
                413, f"The form has more files than the {self._limits.images} that the service takes at once."
            )
        shown = printable(name.decode("utf-8", "backslashreplace"))[:LONGEST_NAME]
        self.uploads.append(Upload(shown, b"".join(self._data)))


def read_form(body: bytes, boundary: str, limits: Limits) -> list[Upload]:
    """Return the files of a form, in its order. Raises Refused where it is damaged, or has too many."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    form, ended = _Form(limits), []
    try:
        callbacks: Any = {**form.callbacks(), "on_end": lambda: ended.append(True)}
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, UnicodeError) as error:
        raise Refused(400, f"The form is damaged: {printable(str(error))[:LONGEST_NAME]}.") from None
    if not ended:
        raise Refused(400, "The form is not complete: its last boundary is missing.")
    return form.uploads
