"""The forms of UIDs and codes: only a text of such a form is taken over from a header, as any other may be a name."""

from __future__ import annotations

import re
from typing import Any

UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5, 9.1; such a text is also safe in a path and in a URL
LONGEST_UID = 64
MODALITY_FORM = re.compile("[A-Z0-9_ ]{1,16}")  # PS3.5, 6.2: CS


def several(value: Any) -> list[Any]:
    """The values of an attribute (pydicom); none if it is missing or empty."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)
