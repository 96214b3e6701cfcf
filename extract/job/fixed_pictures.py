"""Two fixed pictures through decoding and resizing, by which a change of the pixels is noticed.

    <cache folder>/pixels.json     the SHA-256 of their pixels, and the versions of the libraries that made them

A decoder or a resize kernel of another version, or another processor, may give pixels that differ by 1 of 255; the
vectors then differ by percents, under the same key. So the first rows of a cache come with the hash of a JPEG and a PNG
that went the same way, and every later run that adds rows compares it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import read_json_file
from featurecache.base.versions import installed_version
from featurecache.extract.images.decode import decode_pixels
from featurecache.extract.images.transform import fit_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from featurecache.extract.job.plan import Group, Plan

PIXELS_FILE = "pixels.json"
MOST_BYTES = 1 << 16
# What turns a file into pixels.
PIXEL_LIBRARIES = ("torch", "pillow", "simplejpeg", "numpy")
# 96 x 72 pixels, 4:2:0, quality 40: waves and edges in three colours.
JPEG = base64.b64decode(
    """
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVtVkVGZIhlbXd7gYKBTmCNl4x9
    lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/wAARCABIAGAD
    ASIAAhEBAxEB/8QAGgAAAwEBAQEAAAAAAAAAAAAAAwQFAAIGAf/EACEQAAICAgICAwEAAAAAAAAAAAECAAMEETFBEiETFFFh/8QAGQEBAQEBAQEA
    AAAAAAAAAAAABQQDAgAB/8QAJREAAgICAgEEAgMAAAAAAAAAAQIAAwQRITESExQiQQWxI1GB/9oADAMBAAIRAxEAPwCnVYuoYuupCTKKjmdHO13C
    0xiTK7KPTXiVLCpir1K0T+9vuErygTzFKqGWBXBy3EOuIGPEMuCNb1O6LQdRprlChR3NrbjQhc/UoxkcGTLcXyJOvXUUuxSOpbZl1FrQpgldruxZ
    uzELcs1rqeetxzAfA2+JfagMZlwweozTboQ33RdpGqpYRysMsppgD8n2zECKSRxLBcutmL0OuuZIsqZYpaGE9DdQDEbMXZ4h2O4+5PfnA8SNttxi
    lmEcGDs8QyYJHUWRl1MaWWw8zmq8ouz1PozDvZM5uoIPiOBFbK2WEZli3WeA6H7jKpWq7jpzv7Ofu7PMlWFhBhm3OqsZYRkIrnQl+rIDHmP0WKZ5
    uixhKNN5Eq9v/U4pwd8z0KMuoHJdWPiNaEmNnfGnPvqLHO/sOzQw/iX/AGUvSaxuONkg9zK6sZBXKbfMboyT+y9MbQhT45duJdqRTGTWqp/TxJdG
    ToezCnNDHn11J8tmpT49nqX0YrLzCvQuondjg9QzZY/YM5Ct3C6EYTjJudeJPsxNnicDBO+JUQqxjVVSmKpYVkVVjs3MkJhEdTs45US6uOuuIDKq
    AXxHc3bKFaF2jVV/iJ5rILFj+DiJuzAy5djA9RN8PZ4h9VvqN5N2ZjdmK3EWGK2+IerHYdS0mGD1DfTVV2R6jAvAGzMsazfciWFkXxHcC1rLKtuL
    skkRG/GP5BmyBkWeR6+oq96Kuok2Uw7mTKO+Z8sxjvicrjNviIVImoS5W1pQoyT69ynRk8e5GqpYRlfJRKBSpltOKuty2MxVXZPEVfLDEknmR8jK
    YHxB9CKtln9hWVX6r+C9D9zi+oKOJcNytOkCsZDTKJPMfx8nj3PLjlRCPbMzS1RaDC2XqT4gjQmmn38h8agB9mJ1VqBxAO6mLWBWmmkFKgQ/KYgw
    X1wx4hUwgeppokrETCgncMMEa4gcjH+NPQ99TTTWy10qZlPMaWxgJHuxj+RN8dt8TTSTHY6k1tzk8z6mO2+I1VWwmmiSmWY3M//Z
    """
)


class PixelsDocument(TypedDict):
    """pixels.json. sha256: of the pixels of both pictures. versions: of the libraries that made them."""

    sha256: str
    versions: dict[str, str | None]


@cache
def fixed_png() -> bytes:
    """Return a PNG of 640 x 427 pixels, not compressed: slopes, and edges between them."""
    from PIL import Image

    y, x = np.mgrid[:427, :640]
    channels = [(3 * x + 5 * y) % 256, (x * y // 31) % 256, (7 * x - 2 * y) % 256]
    file = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def fixed_pixels(group: Group) -> PixelsDocument:
    """Return the document of the pixels that this group's transform makes of both pictures on this machine."""
    hashed = hashlib.sha256()
    for data in (JPEG, fixed_png()):
        pixels = fit_pixels(decode_pixels(data, at_least=group.at_least), group.transform)
        hashed.update(pixels.tobytes())
    return {"sha256": hashed.hexdigest(), "versions": {name: installed_version(name) for name in PIXEL_LIBRARIES}}


def check_pixels(groups: Iterable[Group]) -> list[str]:
    """Compute the fixed pixels of every group for its plans, and return a line for each cache with others."""
    made: dict[object, PixelsDocument] = {}
    lines = []
    for group in groups:
        how = group.geometry, group.at_least
        if how not in made:
            made[how] = fixed_pixels(group)
        for plan in group.plans.values():
            plan.pixels = made[how]
            before = _read(plan.cache.folder)
            if before is not None and before["sha256"] != made[how]["sha256"]:
                lines.append(_difference(plan.cache.folder, before["versions"], made[how]["versions"]))
    return lines


def record_pixels(plan: Plan) -> None:
    """Write pixels.json of a cache that has none. A folder that cannot be written is reported when rows are added."""
    path = plan.cache.folder / PIXELS_FILE
    if plan.pixels is None or path.exists():
        return
    with contextlib.suppress(OSError), replacing_file(path) as temporary:
        temporary.write_text(json.dumps(plan.pixels), encoding="utf-8")


def _read(folder: Path) -> PixelsDocument | None:
    try:
        found = read_json_file(folder / PIXELS_FILE, folder, most_bytes=MOST_BYTES)
        versions = {name: str(found["versions"].get(name)) for name in PIXEL_LIBRARIES}
        return {"sha256": str(found["sha256"]), "versions": dict(versions)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _difference(folder: Path, before: dict[str, str | None], now: dict[str, str | None]) -> str:
    changed = [name for name in PIXEL_LIBRARIES if str(before[name]) != str(now[name])]
    by = ", ".join(f"{name} {before[name]} then and {now[name]} now" for name in changed) or "another processor"
    return (
        f"Images are decoded or resized to other pixels than when '{folder.name}' was filled ({by}): its new vectors "
        "may differ from the others by percents. Extract with the same versions, or all images into another --cache."
    )
