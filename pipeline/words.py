"""Numbers in sentences."""

from __future__ import annotations


def there_are(n: int, noun: str, rest: str = "") -> str:
    """Return "1 image is", "2 images are"; `rest` stands behind the noun: "1 image without a label is"."""
    words = f"{n:,} {noun}{'' if n == 1 else 's'}"
    return f"{words} {rest}{' ' if rest else ''}{'is' if n == 1 else 'are'}"
