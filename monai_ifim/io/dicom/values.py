"""`PixelValues`: by which of the transformations in its headers a volume gets its values, and in which unit; no pixel is read.

A header may transform the stored values twice over: by Rescale Slope and Intercept or a Modality LUT (PS3.3, C.11.1), as other
readers do, and by a Real World Value Mapping (C.7.6.16.2.11). Where these give two different values, a person has to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from monai_ifim.io.dicom.functional_groups import groups_of
from monai_ifim.io.dicom.tables import Mapping, line, modality_table, real_world_mapping
from monai_ifim.io.errors import InputError
from monai_ifim.io.reading import REAL_WORLD_ALONE
from monai_ifim.io.source import ValueChoice
from monai_ifim.io.units import HOUNSFIELD, PET_UNITS, RESCALE_UNITS, SCANNER_UNITS, UCUM_UNITS

VALUE_TAGS = (
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "RealWorldValueMappingSequence", "BitsStored", "ImageType",
    "PixelRepresentation", "MultienergyCTAcquisition", "Units",
)  # fmt: skip
QUANTITATIVE = ("CT", "MR", "PT", "NM")  # modalities whose values are measured, whichever of them is shown dark
WITH_RESCALE, BY_TABLE, REAL_WORLD = "stored values with rescale", "Modality LUT", "real-world values"
ANNOTATION = re.compile(r"\{[^}]*\}")  # of a unit of UCUM: free text, which is not part of it

Slice = tuple[Any, int | None]  # header of a file (pydicom), and the number of one of its frames, from 0


@dataclass(frozen=True, eq=False)
class PixelValues:
    """The transformations that the headers of a volume state, in the order of its slices.

    modality: by a Modality LUT or by rescaling; real_world: all that each slice states. bright_is_low: MONOCHROME1, where the
    smallest value is shown brightest (PS3.3, C.7.6.3.1.2). largest: the stored value of each slice into which such an inversion
    turns 0. quantitative: of a modality whose values are measured.
    """

    modality: tuple[Mapping, ...]
    real_world: tuple[tuple[Mapping, ...], ...] = ()
    bright_is_low: tuple[bool, ...] = ()
    largest: tuple[int, ...] = ()
    quantitative: bool = True

    def chosen(self, choice: ValueChoice) -> ChosenValues:
        """The transformation to use; raises InputError, which begins with the reason, where the choice decides nothing."""
        if choice.values == "rescale" or not any(self.real_world):
            if choice.values == "real-world":
                raise InputError("its header states no real-world values: leave --values out")
            return self._by_modality(choice)
        same = self._as_modality()
        if choice.values == "header" and same is not None:
            found = self._by_modality(choice)
            return found if found.unit != SCANNER_UNITS or found.inverted else replace(found, unit=same)
        if any(len(stated) != 1 for stated in self.real_world) or len({stated[0].unit for stated in self.real_world}) > 1:
            raise InputError(
                "its header states several real-world values of a voxel, or others for each slice: use --values rescale for the "
                "stored values with their Rescale Slope and Intercept, as other readers give them"
            )
        if choice.values == "header" and not all(mapping.is_identity for mapping in self.modality):
            raise InputError(
                f"its header states two values of a voxel, one by {self._stated()} (in {_unit(self.modality)}) and one by a Real "
                f"World Value Mapping (in {self.real_world[0][0].unit}): choose with --values rescale or --values real-world"
            )
        mappings = tuple(stated[0] for stated in self.real_world)
        return ChosenValues(mappings, REAL_WORLD if choice.values == "real-world" else REAL_WORLD_ALONE, _unit(mappings), False)

    def depends_on(self, name: str) -> bool:
        """True if the choice of this name (of a field of `ValueChoice`) decides which values there are."""
        if name == "values":
            return any(self.real_world)
        return any(self.bright_is_low) and not self.quantitative

    def _by_modality(self, choice: ValueChoice) -> ChosenValues:
        """Of radiographs and the like, MONOCHROME1 is inverted unless it is to stay: what MONAI's default reader, ITK, does."""
        if self.quantitative or choice.monochrome1 == "stored" or not any(self.bright_is_low):
            return ChosenValues(self.modality, self._stated(), _unit(self.modality), False)
        mappings = [
            mapping.of_inverted(largest) if low else mapping
            for mapping, low, largest in zip(self.modality, self.bright_is_low, self.largest, strict=True)
        ]
        return ChosenValues(tuple(mappings), self._stated(), SCANNER_UNITS, True)

    def _stated(self) -> str:
        return BY_TABLE if any(mapping.table is not None for mapping in self.modality) else WITH_RESCALE

    def _as_modality(self) -> str | None:
        """Unit of the real-world values that are those of the modality transformation in all slices; None if there are none."""
        found = []
        for mapping, stated in zip(self.modality, self.real_world, strict=True):
            same = [each.unit for each in stated if each.gives_as(mapping)]
            if not same:
                return None
            found.append(same[0])
        return found[0] if len(set(found)) == 1 else SCANNER_UNITS


@dataclass(frozen=True, eq=False)
class ChosenValues:
    """The transformation of each slice, which kind it is, the unit of its results, and whether it swaps bright and dark."""

    mappings: tuple[Mapping, ...]
    stated_by: str
    unit: str
    inverted: bool


def values_of(slices: Sequence[Slice]) -> PixelValues:
    """The transformations of a volume's slices, in their order.

    Raises InputError for a table that is broken, ValueError for text in place of numbers.
    """
    modality = tuple(_modality(*each) for each in slices)
    real_world = tuple(_real_world(*each) for each in slices)
    return PixelValues(
        modality,
        real_world,
        bright_is_low=tuple(str(each.get("PhotometricInterpretation", "")) == "MONOCHROME1" for each, _ in slices),
        largest=tuple(_largest(header) for header, _ in slices),
        quantitative=str(slices[0][0].get("Modality", "")) in QUANTITATIVE,
    )


def _largest(header: Any) -> int:
    """The stored value into which turning white and black turns 0."""
    if int(header.get("PixelRepresentation") or 0) == 1:
        return -1
    return int(2 ** int(header.get("BitsStored") or header.get("BitsAllocated") or 16)) - 1


def _modality(header: Any, frame: int | None) -> Mapping:
    """A Modality LUT, or the slope and intercept of the frame, else those of the file."""
    group = _functional(header, frame, "PixelValueTransformationSequence")
    table = next(iter(header.get("ModalityLUTSequence") or ()), None)
    if table is not None and group is None:
        kind = table.get("ModalityLUTType")
        return modality_table(table, header, _rescale_unit(header, kind or "US", header))
    stated = header if group is None else group
    slope, intercept = stated.get("RescaleSlope"), stated.get("RescaleIntercept")
    if slope in (None, "") and intercept in (None, ""):
        return Mapping(unit=_pet_unit(header))
    return line(slope, intercept, _rescale_unit(header, stated.get("RescaleType"), _frame_type(header, frame)))


def _real_world(header: Any, frame: int | None) -> tuple[Mapping, ...]:
    name = "RealWorldValueMappingSequence"
    items = _groups(header, frame, name) or header.get(name) or ()
    found: list[Mapping] = []
    for item in items:
        mapping = real_world_mapping(item, _measured_unit(item))
        if not any(mapping.unit == each.unit and mapping.gives_as(each) for each in found):  # the same one is written twice
            found.append(mapping)
    return tuple(found)


def _rescale_unit(header: Any, kind: Any, typed: Any) -> str:
    """Unit after rescaling: what Rescale Type says, and Units for PET.

    Where a CT image does not say, it is in Hounsfield units if it is ORIGINAL, no LOCALIZER and no multi-energy image: only there
    the standard demands these (PS3.3, C.8.2.1 and C.8.15.3.10). typed: has the Image Type or Frame Type.
    """
    modality = str(header.get("Modality", ""))
    if modality == "PT":
        return _pet_unit(header)
    if kind not in (None, ""):
        unit = RESCALE_UNITS.get(str(kind), SCANNER_UNITS)
        return unit if unit != HOUNSFIELD or modality == "CT" else SCANNER_UNITS
    types = [str(each) for each in _several(typed.get("FrameType") or typed.get("ImageType"))]
    measured = types[:1] == ["ORIGINAL"] and "LOCALIZER" not in types
    several_energies = str(header.get("MultienergyCTAcquisition", "")) == "YES"
    return HOUNSFIELD if modality == "CT" and measured and not several_energies else SCANNER_UNITS


def _pet_unit(header: Any) -> str:
    return PET_UNITS.get(str(header.get("Units", "")), SCANNER_UNITS) if header.get("Modality") == "PT" else SCANNER_UNITS


def _measured_unit(item: Any) -> str:
    """Unit of real-world values by its code; only codes that are known are taken over, as any other may be a text."""
    code = next(iter(item.get("MeasurementUnitsCodeSequence") or ()), None)
    if code is None or str(code.get("CodingSchemeDesignator", "")) != "UCUM":
        return SCANNER_UNITS
    return UCUM_UNITS.get(ANNOTATION.sub("", str(code.get("CodeValue") or "")), SCANNER_UNITS)


def _frame_type(header: Any, frame: int | None) -> Any:
    for name in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence"):
        found = _functional(header, frame, name)
        if found is not None:
            return found
    return header


def _functional(header: Any, frame: int | None, name: str) -> Any:
    """The first item of a functional group of the frame, else of that shared by all; None if there is none."""
    return next(iter(_groups(header, frame, name)), None)


def _groups(header: Any, frame: int | None, name: str) -> Sequence[Any]:
    for group in groups_of(header, frame):
        if group.get(name):
            return list(group.get(name))
    return ()


def _several(value: Any) -> list[Any]:
    return [] if value in (None, "") else [value] if isinstance(value, str) else list(value)


def _unit(mappings: Sequence[Mapping]) -> str:
    """The unit that all slices have, else scanner units."""
    units = {mapping.unit for mapping in mappings}
    return units.pop() if len(units) == 1 else SCANNER_UNITS
