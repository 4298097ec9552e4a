"""`Plane`: a slice with its place, of a file of its own or a frame of a multi-frame file, and what its header states about it.

PS3.3, C.7.6.2 (Image Plane) for single frames, C.7.6.16 (Multi-frame Functional Groups) for the frames of enhanced objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ifim.io.dicom.functional_groups import PER_FRAME, SHARED, groups_of
from monai_ifim.io.dicom.volume import Array
from monai_ifim.io.errors import InputError

# Of objects converted from single frames (PS3.3, C.7.6.16.2.21 and .22: what no other functional group takes)
CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice. frame: its number in a multi-frame file, from 0; None for a file of one frame.

    position: LPS mm of its first voxel [3]; orientation: direction cosines of rows and columns [6]; spacing: mm between columns
    and between rows, None if not stated.
    """

    path: Path
    header: Any
    frame: int | None
    position: Array
    orientation: Array
    spacing: tuple[float, float] | None

    def stated(self, keyword: str, *functional: str) -> Any:
        """An attribute of the slice, None if it is missing, empty or damaged.

        keyword: its name in a file of one frame. functional: the sequences, and the name, under which a functional group states
        it, if there is one; an object converted from single frames may keep the name. Else the file's own attribute holds for all
        of its frames.
        """
        with suppress(Exception):  # pydicom raises many types for a damaged value, which then tells nothing
            for group in groups_of(self.header, self.frame):
                for path in (functional, *((sequence, keyword) for sequence in CONVERTED)):
                    found = _nested(group, path) if path else None
                    if found is not None:
                        return found
            found = self.header.get(keyword)
            return None if found == "" else found
        return None


def frames_of(header: Any) -> int:
    """Number of frames in a file."""
    return int(header.get("NumberOfFrames") or 1)


def planes_of(path: Path, header: Any) -> list[Plane]:
    """The slices in a file; none if it does not state the place of each of them.

    Raises InputError if it describes another number of frames than it holds.
    """
    if len(header.get("ImagePositionPatient") or ()) == 3 and len(header.get("ImageOrientationPatient") or ()) == 6:
        if frames_of(header) > 1:  # one place for all of them, which is none
            return []
        places = (header.ImagePositionPatient, header.ImageOrientationPatient, header.get("PixelSpacing"))
        return [_plane(path, header, None, *places)]
    count, described = frames_of(header), len(header.get(PER_FRAME) or ())
    if not described:
        return []
    if described != count:
        raise InputError(f"{path.name}: it holds {count} frames and describes {described}: export the image again.")
    positions = functional(header, "PlanePositionSequence", "ImagePositionPatient")
    orientations = functional(header, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacings = functional(header, "PixelMeasuresSequence", "PixelSpacing")
    if any(stated is None for stated in (*positions, *orientations, *spacings)):
        return []
    numbers = range(count) if count > 1 else (None,)
    return [_plane(path, header, *each) for each in zip(numbers, positions, orientations, spacings, strict=True)]


def functional(header: Any, sequence: str, name: str) -> list[Any]:
    """An attribute of each frame of a multi-frame object: the frame's own, else the shared one, else None."""
    shared = next(iter(header.get(SHARED) or ()), None)
    common = None if shared is None else _nested(shared, (sequence, name))
    own = [_nested(frame, (sequence, name)) for frame in header.get(PER_FRAME) or ()]
    return [common if value is None else value for value in own]


def spacing_of(stated: Any) -> tuple[float, float] | None:
    """Spacing between columns and between rows; DICOM states rows first (PS3.3, 10.7.1.3)."""
    return None if not stated or len(stated) != 2 else (float(stated[1]), float(stated[0]))


def _plane(path: Path, header: Any, frame: int | None, position: Any, orientation: Any, spacing: Any) -> Plane:
    place, directions = np.array(position, dtype=np.float64), np.array(orientation, dtype=np.float64)
    if place.shape != (3,) or directions.shape != (6,):
        raise ValueError("places of other lengths")
    return Plane(path, header, frame, place, directions, spacing_of(spacing))


def _nested(group: Any, path: Sequence[str]) -> Any:
    """The attribute at the end of a path of sequences, in the first item of each; None if it is missing or empty."""
    for name in path[:-1]:
        group = next(iter(group.get(name) or ()), None)
        if group is None:
            return None
    found = group.get(path[-1])
    return None if found == "" else found
