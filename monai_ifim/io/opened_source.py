"""`OpenedSource`: an input whose headers and content hash are read once and shared by all steps of a case."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib

from monai_ifim.io.dicom.header import DicomFile, read_dicom_files, unit_of_header
from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.regrid import even_grid, resampled
from monai_ifim.io.dicom.regularity import check_volume, is_regular
from monai_ifim.io.dicom.volumes import DicomVolume, choose_volume, undecoded, volumes_of
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.parts import files_of
from monai_ifim.io.nifti_header import NiftiHeader, read_nifti_header
from monai_ifim.io.source import Source, sha256_of, there
from monai_ifim.io.units import GREY_VALUES, SCANNER_UNITS

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class OpenedSource:
    """An input with its headers, content hash and unit, each read from disk at the first use and then kept.

    No voxel is read here, except by `readable_path`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached_property
    def files(self) -> list[DicomFile]:
        """The DICOM files of the input with their headers, sorted by name; empty if it is not DICOM."""
        return [] if self._is_nifti else read_dicom_files(self.source.path)

    @cached_property
    def volumes(self) -> list[DicomVolume]:
        """All volumes among `files`; raises InputError if a header is damaged or there is no image."""
        return volumes_of(self.files)

    @cached_property
    def volume(self) -> DicomVolume:
        """The chosen volume of a DICOM input; raises InputError, with a list of the volumes, if the choice is ambiguous."""
        return choose_volume(self.source.path.name, self.volumes, self.source.series)

    @cached_property
    def headers(self) -> tuple[Any, ...]:
        """DICOM headers (pydicom) of the files of `volume`, in its order."""
        by_path = {file.path: file.header for file in self.files}
        return tuple(by_path[path] for path in self.volume.files)

    @cached_property
    def nifti(self) -> NiftiHeader | None:
        """The header of a NIfTI file, None for other inputs; raises InputError if it is broken."""
        return read_nifti_header(self.source.path) if self._is_nifti else None

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the file, of the folder, or of the files of the chosen series; raises OSError."""
        if self.source.series is None:
            return sha256_of(self.source.path)
        lines = sorted(f"{sha256_of(file)}  {file.name}\n" for file in self.volume.files)
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @cached_property
    def beside(self) -> dict[str, dict[str, Any]]:
        """Name, None for what is no file, and hex SHA-256 of each entry of `Source.beside`; raises OSError."""
        return {key: _identity(value) for key, value in self.source.beside}

    @cached_property
    def unit(self) -> str:
        """Unit of the values that a reader gives: from a DICOM header, grey values for a photograph, else scanner units."""
        if self.source.suffix in PHOTOGRAPHS:
            return GREY_VALUES
        if not self.source.path.exists() or not self.files:
            return SCANNER_UNITS
        header = self.headers[0] if self.source.series is not None else self.files[0].header
        return SCANNER_UNITS if header is None else unit_of_header(header)

    @cached_property
    def resampled(self) -> bool:
        """True if the input is an irregular DICOM volume that is to be resampled onto an even grid."""
        asked = self.source.fix_geometry and self.source.path.is_dir()
        return asked and bool(self.files) and not is_regular(self.volume)

    @property
    def frames(self) -> int:
        """Number of volumes in a NIfTI file; 1 for other inputs. Raises InputError for a broken NIfTI header."""
        return 1 if self.nifti is None else self.nifti.frames

    def check(self, channels: int | None) -> None:
        """Raise InputError, with the cure, if the input is missing, empty, damaged, 4D without a frame, several series, or would
        read other files than its own.

        channels: number of input channels of the network, None if unknown; a 4D file of that many volumes is one image.
        """
        path = self.source.path
        if not there(path):
            raise InputError(f"{path}: no such file or folder.")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path.name}: the file is empty.")
        self.check_own()
        if path.is_dir():
            self._check_folder()
            return
        if self.nifti is not None:
            self.nifti.check()
        if self.files:
            check_volume(path.name, self.volumes[0])
        self._check_frame(channels)

    def check_own(self) -> None:
        """Raise InputError if the input would read other files than its own, or is not of one patient, study and place."""
        for file in (self.source.path, *(value for _, value in self.source.beside if isinstance(value, Path))):
            files_of(file)
        if self.files:
            series = self.source.series
            for volume in [self.volume] if series is not None else self.volumes:
                check_one_patient(self.source.path.name, volume.disagreeing)

    def readable_path(self, folder: Path) -> Path:
        """A path that holds only the chosen volume, for any MONAI reader: the source's own, or one made in `folder`.

        Of a 4D NIfTI, the chosen frame as a 3D file with the same header and affine; of a folder of several series, links to
        the files of the chosen one; of a volume to be resampled, a NIfTI file on an even grid.
        """
        if self.resampled:
            return self._regridded(folder)
        if self.source.series is not None:
            return self._links(folder)
        if self.source.frame is None or self.frames == 1:
            return self.source.path
        return self._frame(folder, self.source.frame)

    @property
    def readable_volume(self) -> DicomVolume | None:
        """The DICOM volume that lies at `readable_path`; None if no DICOM lies there."""
        return self.volume if self.files and not self.resampled else None

    @property
    def _is_nifti(self) -> bool:
        path = self.source.path
        return path.name.lower().endswith((".nii", ".nii.gz")) and not path.is_dir()

    def _check_folder(self) -> None:
        """A folder must hold one regular DICOM volume, or the chosen series must be one."""
        folder = self.source.path
        if not self.files:
            raise InputError(f"{folder.name}: no DICOM file in this folder.")
        if not self.source.fix_geometry:
            check_volume(folder.name, self.volume)
        elif not is_regular(self.volume):
            even_grid(folder.name, self.volume)

    def _check_frame(self, channels: int | None) -> None:
        name, frame, frames = self.source.path.name, self.source.frame, self.frames
        if frame is not None:
            if frame not in range(frames):
                raise InputError(f"{name}: there is no frame {frame}; it has {frames}, counted from 0.")
        elif frames > 1 and frames != channels:
            raise InputError(f"{name}: a 4D file of {frames} volumes; choose one with --frame N, N from 0 to {frames - 1}.")

    def _links(self, folder: Path) -> Path:
        links = folder / self.source.name
        links.mkdir(exist_ok=True)
        for file in self.volume.files:
            link = links / file.name
            if not link.exists():
                link.symlink_to(file.resolve())
        return links

    def _frame(self, folder: Path, frame: int) -> Path:
        image: Any = nib.load(self.source.path)
        target = folder / f"{self.source.name}.nii"
        volume = image.slicer[..., frame]
        if image.get_data_dtype().kind != "f":
            volume.set_data_dtype("float64")  # otherwise nibabel would quantise the scaled values again
        nib.save(volume, target)
        return target

    def _regridded(self, folder: Path) -> Path:
        import itk
        import numpy as np

        name, volume = self.source.path.name, self.volume
        grid = even_grid(name, volume)
        try:
            slices = np.stack([itk.array_from_image(itk.imread(str(file), itk.F))[0] for file in volume.files])
        except Exception as error:
            raise undecoded(name, volume) from error
        target = folder / f"{self.source.name}.nii"
        image = nib.Nifti1Image(resampled(grid, slices), grid.affine)
        image.set_qform(grid.affine, 1)
        nib.save(image, target)
        return target


def _identity(value: Any) -> dict[str, Any]:
    """Name and hash of a file; of another value the hash alone, as it may tell something about a person."""
    if isinstance(value, Path):
        return {"file": value.name, "sha256": sha256_of(value)}
    text = json.dumps(value, sort_keys=True, default=str)
    return {"file": None, "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}
