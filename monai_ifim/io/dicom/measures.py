"""What the headers of a DICOM volume state about the size of its pixels and about its values, put into the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monai_ifim.io.dicom.spacing import PIXEL_SPACING, assumed_size, stated_size
from monai_ifim.io.dicom.values import ChosenValues, Slice, values_of
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import InputError
from monai_ifim.io.reading import Reading
from monai_ifim.io.source import ValueChoice

NO_PLACE = "not stated: at the origin"


def measured(volume: DicomVolume, slices: Sequence[Slice]) -> DicomVolume:
    """The volume with its values, and, for one slice, the size of its pixels: stated by one of several attributes, or assumed.

    slices: header and number of the frame of each, in the order of the volume. Raises InputError for a table that is broken.
    """
    header = slices[0][0]
    grey = int(header.get("SamplesPerPixel") or 1) == 1 and "PALETTE" not in str(header.get("PhotometricInterpretation", ""))
    volume = replace(volume, values=values_of(slices) if grey else None)
    if volume.slices > 1:
        return replace(volume, reading=replace(volume.reading, pixel_spacing=None if volume.spacing is None else PIXEL_SPACING))
    size = stated_size(header)
    if volume.spacing is not None and (size is None or size.pair != volume.spacing):  # of a functional group
        return replace(volume, reading=replace(volume.reading, pixel_spacing=PIXEL_SPACING))
    size = size or assumed_size(header)
    place = NO_PLACE if volume.positions is None else None
    return replace(volume, spacing=size.pair, reading=replace(volume.reading, pixel_spacing=size.stated_by, place=place))


def chosen_values(name: str, volume: DicomVolume, choice: ValueChoice) -> ChosenValues | None:
    """How the values of the volume are made by this choice; None for colours.

    Raises InputError, with the cure, if the headers do not say what the values are. name: what the message calls the volume.
    """
    if volume.values is None:
        return None
    try:
        return volume.values.chosen(choice)
    except InputError as error:
        raise InputError(f"{name}: {error}.") from None


def reading_of_values(volume: DicomVolume, choice: ValueChoice) -> Reading:
    """The volume's reading with what is known of its values; raises as `chosen_values`."""
    chosen = chosen_values("", volume, choice)
    if volume.values is None or chosen is None:
        return volume.reading
    inverted = chosen.inverted if any(volume.values.bright_is_low) else None
    return replace(volume.reading, values=chosen.stated_by, inverted=inverted)
