"""Functional groups of a multi-frame DICOM object: what its header states for one frame, and for all (PS3.3, C.7.6.16)."""

from __future__ import annotations

from typing import Any

PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"


def groups_of(header: Any, frame: int | None) -> list[Any]:
    """The functional groups of a frame (from 0; None for a file of one): its own, then those shared by all; empty without any."""
    own = list(header.get(PER_FRAME) or ())[frame or 0 : (frame or 0) + 1]
    return own + list(header.get(SHARED) or ())[:1]
