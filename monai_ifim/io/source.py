"""What an input is before any pixel is read: its name, its content hash, and why it may be refused."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from monai_ifim.io.dicom.regrid import even_grid, resampled
from monai_ifim.io.dicom.regularity import check_volume, is_regular
from monai_ifim.io.dicom.volumes import choose_volume, index_dicom, undecoded
from monai_ifim.io.errors import InputError, innermost
from monai_ifim.io.nifti_header import check_header, check_place

IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".dcm", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".png", ".jpg", ".jpeg", ".bmp",
    ".tif", ".tiff", ".npy", ".npz",
)  # fmt: skip
LONGEST_NAME = 128  # characters; the names of a case's files are longer, and file systems take 255 bytes


@dataclass(frozen=True)
class Source:
    """One input: a file, or a folder that holds DICOM files.

    frame: which volume of a 4D file, from 0. series: which volume of a DICOM folder (`dicom_volumes.DicomVolume.key`), None
    where there is but one. fix_geometry: resample an irregular DICOM volume onto an orthogonal, even grid.
    """

    path: Path
    frame: int | None = None
    series: str | None = None
    fix_geometry: bool = False

    @property
    def suffix(self) -> str:
        """The suffix that tells the file's format, ".nii.gz" for example; empty where there is none."""
        name = self.path.name
        found = (suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix) and len(name) > len(suffix))
        return next(found, "")

    @property
    def name(self) -> str:
        """Name for files made from it: the base name without its suffix, letters, digits, dot, dash and underscore only."""
        name = self.path.name
        name = name[: len(name) - len(self.suffix)]
        cleaned = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")
        cleaned = bounded_name(cleaned or "case")
        if self.series is not None:
            cleaned += f"_series-{hashlib.sha256(self.series.encode()).hexdigest()[:8]}"
        return cleaned if self.frame is None else f"{cleaned}_frame-{self.frame:03d}"


def bounded_name(name: str) -> str:
    """The name, or, where it is longer than LONGEST_NAME, its beginning and eight digits that stand for all of it."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def there(path: Path) -> bool:
    """Whether there is something at `path`; raises InputError where no file can have that name, or nobody may look."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path.name[:40]}: cannot be looked up ({error.strerror}): correct the path.") from error


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder: the hash of its files' names and hashes in sorted order."""
    if path.is_dir():
        lines = [
            f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file()
        ]
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(source: Source) -> str:
    """Hex SHA-256 of what the source is made of: the file, the folder, or the files of its series."""
    if source.series is None:
        return sha256_of(source.path)
    volume = choose_volume(source.path.name, index_dicom(dicom_files(source.path)), source.series)
    lines = sorted(f"{sha256_of(file)}  {file.name}\n" for file in volume.files)
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files that lie in a folder itself, in the order of their names, or the file if it is one."""
    if path.is_file():
        return [path] if is_dicom(path) else []
    files = sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in files if not file.name.startswith(".") and file.name.upper() != "DICOMDIR" and is_dicom(file)]


def is_dicom(path: Path) -> bool:
    """Whether a file says of itself that it is DICOM (PS3.10, 7.1: 'DICM' after the 128-byte preamble)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def check_source(source: Source, channels: int | None) -> None:
    """Raise InputError, naming the cure, where the input is missing, empty, 4D without a frame, or several series.

    channels: how many input channels the network wants, None where unknown; a 4D file with that many volumes is one image.
    """
    path = source.path
    if not there(path):
        raise InputError(f"{path}: no such file or folder.")
    if path.is_dir():
        _check_series(source)
        return
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: the file is empty.")
    if _is_nifti(path):
        check_header(path)
    frames = count_frames(path)
    if _is_nifti(path):
        check_place(path)
    if is_dicom(path):
        check_volume(path.name, index_dicom([path])[0])
    if source.frame is not None:
        if source.frame not in range(frames):
            raise InputError(f"{path.name}: there is no frame {source.frame}; it has {frames}, counted from 0.")
        return
    if frames > 1 and frames != channels:
        raise InputError(f"{path.name}: a 4D file of {frames} volumes; choose one with --frame N, N from 0 to {frames - 1}.")


def count_frames(path: Path) -> int:
    """Number of volumes in a NIfTI file; 1 for any other file. Raises InputError for a broken NIfTI header."""
    if not _is_nifti(path):
        return 1
    try:
        shape = nib.load(path).shape
    except Exception as error:
        said = innermost(error).replace(str(path), path.name)
        raise InputError(f"{path.name}: not a readable NIfTI file ({said}): copy it anew.") from error
    frames = 1
    for size in shape[3:]:
        frames *= size
    return frames


def readable_path(source: Source, folder: Path) -> Path:
    """A path that holds the chosen volume alone, for any MONAI reader: the source's own, or one made in `folder`.

    Of a 4D NIfTI, the chosen frame as a 3D file, header and affine kept; of a folder of several series, links to the files
    of the chosen one; of an irregular volume, where the source says so, a NIfTI on an even grid.
    """
    if source.fix_geometry and needs_regridding(source):
        return _regridded(source, folder)
    if source.series is not None:
        volume = choose_volume(source.path.name, index_dicom(dicom_files(source.path)), source.series)
        links = folder / source.name
        links.mkdir(exist_ok=True)
        for file in volume.files:
            link = links / file.name
            if not link.exists():
                link.symlink_to(file.resolve())
        return links
    if source.frame is None or count_frames(source.path) == 1:
        return source.path
    image = nib.load(source.path)
    target = folder / f"{source.name}.nii"
    frame = image.slicer[..., source.frame]
    if image.get_data_dtype().kind != "f":
        frame.set_data_dtype("float64")  # or nibabel would quantise the scaled values anew
    nib.save(frame, target)
    return target


def needs_regridding(source: Source) -> bool:
    """Whether a DICOM source is irregular and is to be resampled."""
    files = dicom_files(source.path) if source.fix_geometry and source.path.is_dir() else []
    return bool(files) and not is_regular(choose_volume(source.path.name, index_dicom(files), source.series))


def _regridded(source: Source, folder: Path) -> Path:
    import itk
    import numpy as np

    volume = choose_volume(source.path.name, index_dicom(dicom_files(source.path)), source.series)
    grid = even_grid(source.path.name, volume)
    try:
        slices = np.stack([itk.array_from_image(itk.imread(str(file), itk.F))[0] for file in volume.files])
    except Exception as error:
        raise undecoded(source.path.name, volume) from error
    target = folder / f"{source.name}.nii"
    image = nib.Nifti1Image(resampled(grid, slices), grid.affine)
    image.set_qform(grid.affine, 1)
    nib.save(image, target)
    return target


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _check_series(source: Source) -> None:
    """A folder must hold one regular DICOM volume, or the series chosen must be one."""
    folder = source.path
    files = dicom_files(folder)
    if not files:
        raise InputError(f"{folder.name}: no DICOM file in this folder.")
    volume = choose_volume(folder.name, index_dicom(files), source.series)
    if not source.fix_geometry:
        check_volume(folder.name, volume)
    elif not is_regular(volume):
        even_grid(folder.name, volume)
