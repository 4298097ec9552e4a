"""The verdict on every volume below a folder."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.geometry import dcm2niix, headers, libraries, product
from benchmarks.geometry.comparison import Comparison, compare, corner_distance
from benchmarks.geometry.reasons import Difference, reasons_for
from benchmarks.geometry.volume import Refused, Volume

Verdict = Literal[
    "same", "differs: reason known", "differs", "refused by us", "refused by them", "refused by both", "not found by us"
]
BEGINNING = 132  # bytes of a DICOM file up to the end of its mark


@dataclass(frozen=True)
class Row:
    """The verdict on one volume.

    reader: who read it besides the product. ours, theirs: sizes; which: number of their volume in its series. place: mm between
    the corners, values: relative difference. why: name of the reason, or the message of who refused it. said: words of both
    beside the result. traceback: where the product raised something that is no refusal.
    """

    volume: str
    reader: str
    verdict: Verdict
    ours: tuple[int, ...] | None = None
    theirs: tuple[int, ...] | None = None
    which: int | None = None
    place: float | None = None
    values: float | None = None
    why: str = ""
    said: str = ""
    traceback: str | None = None

    @property
    def is_finding(self) -> bool:
        """Whether somebody must look: a difference or an image passed over without a known reason, or a traceback."""
        return self.traceback is not None or self.verdict == "differs" or (self.verdict == "not found by us" and not self.why)


def judge(root: Path) -> list[Row]:
    """The verdicts on all volumes below a folder, and on what other programs read there and the product does not."""
    with tempfile.TemporaryDirectory() as scratch:
        return list(_Judge(root, Path(scratch)).rows())


class _Judge:
    """A folder that is judged; each folder of DICOM files in it is converted once."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        self.conversions: dict[Path, dcm2niix.Conversion] = {}
        self.matched: dict[int, Volume] = {}  # volumes that one of ours stands for, by identity, which needs that they live on
        self.reasons: dict[str, str] = {}  # why volumes of a series differ

    @cached_property
    def inputs(self) -> list[product.Input]:
        return product.inputs_below(self.root)

    def rows(self) -> Iterator[Row]:
        for given in self.inputs:
            made = product.read(given, self._folder())
            is_dicom = made.key is not None or given.folder in self.dicom_folders
            yield self._of_dicom(given, made) if is_dicom else self._of_file(given, made)
        yield from self._unmatched()
        yield from self._other_files()

    @cached_property
    def dicom_folders(self) -> list[Path]:
        """The folders that hold DICOM files, by their mark."""
        folders = dict.fromkeys(path.parent for path in sorted(self.root.rglob("*")) if _is_marked(path))
        return list(folders)

    def _of_dicom(self, given: product.Input, reading: product.Reading) -> Row:
        conversion = self._conversion(given.folder)
        several = conversion.volumes if reading.series is None else conversion.of_series(reading.series)
        if isinstance(reading.made, Refused):
            several = several or conversion.volumes  # a damaged header may state another series
            self.matched.update((id(volume), volume) for volume in several)
            return self._refused(given, reading.made, dcm2niix.PROGRAM, several, conversion.said)
        if several:
            return self._compared(given, reading, reading.made, dcm2niix.PROGRAM, several, conversion.said)
        other = headers.read_pydicom(reading.files)
        if isinstance(other, Volume) and np.isnan(other.values).all():
            other = Refused("a transfer syntax that it does not decode")
        if isinstance(other, Volume):
            return self._compared(given, reading, reading.made, headers.PYDICOM, [other])
        why = f"{dcm2niix.PROGRAM}: {conversion.said or 'no image written'}; {headers.PYDICOM}: {other.message}"
        return Row(given.name, dcm2niix.PROGRAM, "refused by them", reading.made.sizes, why=why, said=_joined(reading.said))

    def _of_file(self, given: product.Input, reading: product.Reading) -> Row:
        name, read = libraries.reader_of(given.source.path) or (libraries.ITK, libraries.read_itk)
        other = read(given.source.path, given.source.frame)
        if isinstance(reading.made, Refused):
            return self._refused(given, reading.made, name, [] if isinstance(other, Refused) else [other])
        if isinstance(other, Refused):
            return Row(given.name, name, "refused by them", reading.made.sizes, why=other.message, said=_joined(reading.said))
        return self._compared(given, reading, reading.made, name, [other])

    def _compared(
        self, given: product.Input, reading: product.Reading, ours: Volume, reader: str, several: Sequence[Volume], said: str = ""
    ) -> Row:
        which = nearest(ours, several, self.matched)
        theirs, found = several[which], compare(ours, several[which])
        self.matched[id(theirs)] = theirs
        known = [] if found.same else reasons_for(_difference(reading.files, ours, theirs, found))
        if known and reading.series is not None:
            self.reasons[reading.series] = ", ".join(reason.name for reason in known)
        return Row(
            given.name,
            reader,
            "same" if found.same else "differs" if known is None else "differs: reason known",
            ours.sizes,
            theirs.sizes,
            which if len(several) > 1 else None,
            found.place,
            found.values,
            ", ".join(reason.name for reason in known or []),
            _joined([*reading.said, f"{reader}: {said}" if said else ""]),
        )

    def _refused(self, given: product.Input, refused: Refused, reader: str, several: Sequence[Volume], said: str = "") -> Row:
        verdict: Verdict = "refused by us" if several else "refused by both"
        words = _joined([_counted(several), said])
        words = f"{reader}: {words}" if words else ""
        return Row(given.name, reader, verdict, why=refused.message, said=words, traceback=refused.traceback)

    def _unmatched(self) -> Iterator[Row]:
        """What dcm2niix reads and the product does not find."""
        for folder in self.dicom_folders:
            left = [volume for volume in self._conversion(folder).volumes if id(volume) not in self.matched]
            kinds = {series: f"passed over: {kind}" for series, kind in product.passed_over(folder).items()} if left else {}
            kinds |= {series: f"others of its series differ: {reasons}" for series, reasons in self.reasons.items()}
            name = "." if folder == self.root else folder.relative_to(self.root).as_posix()
            for why in dict.fromkeys(kinds.get(dcm2niix.series_of(volume), "") for volume in left):
                alike = [volume for volume in left if kinds.get(dcm2niix.series_of(volume), "") == why]
                yield Row(name, dcm2niix.PROGRAM, "not found by us", theirs=alike[0].sizes, why=why, said=_counted(alike))

    def _other_files(self) -> Iterator[Row]:
        """What nibabel or ITK read and the product does not find."""
        known = {given.source.path for given in self.inputs}
        for path in sorted(self.root.rglob("*")):
            reader = libraries.reader_of(path)
            if reader is None or not path.is_file() or path in known or libraries.is_second_half(path):
                continue
            other = reader[1](path, None)
            if isinstance(other, Volume):
                yield Row(path.relative_to(self.root).as_posix(), reader[0], "not found by us", theirs=other.sizes)

    def _conversion(self, folder: Path) -> dcm2niix.Conversion:
        if folder not in self.conversions:
            self.conversions[folder] = dcm2niix.convert(folder, self._folder())
        return self.conversions[folder]

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch))


def _difference(files: Sequence[Path], ours: Volume, theirs: Volume, found: Comparison) -> Difference:
    """What differs, with what the headers of DICOM files say."""
    if not files:
        return Difference(ours, theirs, found)
    placed = headers.read_pydicom(files)
    by_headers = None if isinstance(placed, Refused) else compare(ours, placed)
    return Difference(ours, theirs, found, headers.facts_of(files[0]), by_headers, headers.end_gaps(files))


def nearest(ours: Volume, several: Sequence[Volume], taken: Collection[int] = ()) -> int:
    """Number of the volume of the same sizes that lies nearest; of some at one place, of that with the nearest values; of some
    with the same values, of one whose identity is not among `taken`."""
    if len(several) == 1:
        return 0
    places = [(sorted(ours.sizes) != sorted(each.sizes), round(corner_distance(ours, each), 3)) for each in several]

    def distance(k: int) -> tuple[float, bool]:
        values = compare(ours, several[k]).values
        return math.inf if values is None else values, id(several[k]) in taken

    return min((k for k, place in enumerate(places) if place == min(places)), key=distance)


def _counted(several: Iterable[Volume]) -> str:
    counts = Counter(" x ".join(map(str, volume.sizes)) for volume in several)
    return ", ".join(f"{count} of {sizes}" for sizes, count in counts.items())


def _joined(words: Iterable[str]) -> str:
    return "; ".join(word for word in words if word)


def _is_marked(path: Path) -> bool:
    if not path.is_file() or path.name.lower().endswith(product.PLACELESS):
        return False
    with path.open("rb") as file:
        return file.read(BEGINNING)[128:] == b"DICM"
