"""JSON files that end with their own SHA-256, so that an alteration is noticed. It is no signature: who alters can seal again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

END = b"\n}\n"


def sealed(content: Mapping[str, Any], entry: str) -> bytes:
    """The content, which is not empty, as JSON; its last entry, called `entry`, is the SHA-256 of the file without that entry.

    Raises TypeError, ValueError for anything but plain data, NaN and infinity among it.
    """
    plain = {name: value for name, value in content.items() if name != entry}
    text = json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False)
    body = text.encode("utf-8", "backslashreplace").removesuffix(END[:-1])
    return body + _ending(body, entry)


def is_unaltered(text: bytes, entry: str) -> bool:
    """True if the bytes are those that `sealed` gave, by the hash that they end with."""
    length = len(_ending(b"", entry))
    return text[-length:] == _ending(text[:-length], entry)


def _ending(body: bytes, entry: str) -> bytes:
    """The end of a file that begins with `body`: the hash of `body` and END, as the last entry."""
    return f',\n  "{entry}": "{hashlib.sha256(body + END).hexdigest()}"'.encode() + END
