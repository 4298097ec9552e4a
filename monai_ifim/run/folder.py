"""What lies in a folder and below it: images, series of DICOM, results of earlier runs, and files that are not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from monai_ifim.io import InputError
from monai_ifim.io.case_files import results_in
from monai_ifim.io.dicom.header import is_dicom, read_dicom_file
from monai_ifim.io.dicom.object_kinds import DIRECTORY, NoImageError, ObjectKind
from monai_ifim.io.experiment_files import results_of_experiment
from monai_ifim.io.hidden_names import DETACHED
from monai_ifim.io.image_files.parts import files_of, first_file
from monai_ifim.io.source import IMAGE_SUFFIXES
from monai_ifim.run.found_input import FoundInput
from monai_ifim.run.unread_files import kind_beside_dicom, kind_of_unread

Kinds = Mapping[Path, ObjectKind]
HEADERS = tuple(  # of formats whose voxels may lie beside them
    suffix for suffix in DETACHED if not suffix.startswith((".img", ".brik"))
)
WHOLE = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in DETACHED)


def found_in(folder: Path, folders: tuple[str, ...] = (), above: frozenset[Path] = frozenset()) -> Iterator[FoundInput]:
    """All that lies in a folder and below it, in a stable order; links to a folder above are not followed.

    A folder with DICOM images is one input, and its other files are no images of their own. A folder below that cannot be looked
    into is "refused". Raises OSError if this one cannot.
    """
    children = sorted(folder.iterdir())
    names = {child.name for child in children}
    results = results_in(folder, names) | results_of_experiment(folder.absolute(), names)
    seen = [child for child in children if not child.name.startswith(".")]
    series, kinds = _looked_into(child for child in seen if child.name not in results)
    if series:
        yield FoundInput(folder, folders[:-1])
    within, parts = above | {folder.resolve()}, None
    for child in seen:
        if child.name in results and child.is_file():
            if child.name.lower().endswith(IMAGE_SUFFIXES):
                yield FoundInput(child, folders, kind="result")
        elif child.is_dir():
            yield from _below(child, (*folders, child.name), within)
        elif series:
            kind = kind_beside_dicom(child)
            if kind is not None:
                yield FoundInput(child, folders, kind="unread", said=kind)
        elif child in kinds:
            yield from _without_image(child, folders, kinds[child])
        elif _is_image(child):
            if first_file(child) == child:
                yield FoundInput(child, folders)
        elif child.is_file() or child.is_symlink():
            parts = parts_of(seen) if parts is None else parts
            kind = None if child in parts else kind_of_unread(child)
            if kind is not None:
                yield FoundInput(child, folders, kind="unread", said=kind)


def _looked_into(files: Iterator[Path]) -> tuple[bool, Kinds]:
    """True at the first DICOM image among some files; else False, with the kinds of the DICOM objects that hold none."""
    kinds: dict[Path, ObjectKind] = {}
    for file in files:
        with suppress(OSError):  # a file that may not be read fails as a case, if it is called like an image
            if not is_dicom(file):
                continue
            refusal = read_dicom_file(file).refusal
            if not isinstance(refusal, NoImageError):
                return True, {}
            kinds[file] = refusal.kind
    return False, kinds


def _below(folder: Path, folders: tuple[str, ...], above: frozenset[Path]) -> Iterator[FoundInput]:
    try:
        if folder.resolve() not in above:
            yield from found_in(folder, folders, above)
    except OSError as error:
        yield FoundInput(folder, folders[:-1], kind="refused", said=str(not_looked_into(folder, error)))


def not_looked_into(folder: Path, error: OSError) -> InputError:
    """The error for a folder whose files cannot be listed."""
    return InputError(f"{folder.name}: cannot be looked into ({error.strerror}): get the right to read it, or leave it out.")


def _without_image(file: Path, folders: tuple[str, ...], kind: ObjectKind) -> Iterator[FoundInput]:
    """A DICOM object without an image: a map of an earlier run is a result, and of what was computed from images it is told."""
    if kind == DIRECTORY:
        yield FoundInput(file, folders, kind="index")
    elif kind.own:
        yield FoundInput(file, folders, kind="result", said=kind.name)
    elif kind.derived:
        yield FoundInput(file, folders, kind="unread", said=f"DICOM {kind.name.removesuffix(' Storage')}")


def _is_image(file: Path) -> bool:
    """True for a file, or a link to none, with the suffix of an image."""
    return file.name.lower().endswith(IMAGE_SUFFIXES) and (file.is_file() or file.is_symlink())


def parts_of(files: Collection[Path]) -> set[Path]:
    """The files that images among these consist of besides their own, such as voxels apart from a header. Headers are read only
    if one of the files could be such a part."""
    headers = [file for file in files if file.name.lower().endswith(HEADERS)]
    if not headers or all(file.name.lower().endswith((*HEADERS, *WHOLE)) for file in files):
        return set()
    found: set[Path] = set()
    for header in headers:
        with suppress(InputError, OSError):
            found.update(files_of(header)[1:])
    return found
