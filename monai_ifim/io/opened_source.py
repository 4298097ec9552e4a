"""`OpenedSource`: an input whose headers and content hash are read once and shared by all steps of a case."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib

from monai_ifim.io.case_files import results_in
from monai_ifim.io.dicom.grid import origin_of_step
from monai_ifim.io.dicom.header import DicomFile, read_dicom_files
from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.measures import chosen_values, reading_of_values
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.dicom.regrid import even_grid, resampled
from monai_ifim.io.dicom.regularity import check_placed, check_volume, is_even, largest_distance
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import choose_volume, volumes_of
from monai_ifim.io.digests import Stamp
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.parts import refuse_bruker
from monai_ifim.io.input_files import (
    HashedFile,
    changed,
    digest_of_hashed,
    files_of_input,
    hash_file,
    refuse_changed,
)
from monai_ifim.io.nibabel_files.header import VolumeHeader
from monai_ifim.io.nibabel_files.opening import is_nibabel_file, read_volume_header
from monai_ifim.io.reading import OWN_MAP, Reading
from monai_ifim.io.source import Source, is_dangling, not_fetched, there
from monai_ifim.io.units import GREY_VALUES, SCANNER_UNITS

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class OpenedSource:
    """An input with its headers, content hash and unit, each read from disk at the first use and then kept.

    No voxel is read here, except by `readable_path`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stamps: dict[Path, Stamp] = {}  # of the files of a folder before their headers were read

    @cached_property
    def files(self) -> list[DicomFile]:
        """The DICOM files of the input with their headers, sorted by name; empty if it is not DICOM."""
        if self._is_nibabel_file:
            return []
        if self.source.path.is_dir():
            self._stamps = {file: Stamp.of(file.stat()) for file in files_of_input(self.source.path)}
        return read_dicom_files(self.source.path)

    @cached_property
    def volumes(self) -> list[DicomVolume]:
        """All volumes among `files`; raises InputError if a header is damaged or there is no image."""
        return volumes_of(self.files)

    @cached_property
    def volume(self) -> DicomVolume:
        """The chosen volume of a DICOM input; raises InputError, with a list of the volumes, if the choice is ambiguous."""
        volume = choose_volume(self.source.path.name, self.volumes, self.source.series, self.source.frame)
        return replace(volume, choice=self.source.choice)

    @cached_property
    def headers(self) -> tuple[Any, ...]:
        """DICOM headers (pydicom) of the files of `volume`, in its order."""
        by_path = {file.path: file.header for file in self.files}
        return tuple(by_path[path] for path in self.volume.files)

    @cached_property
    def volume_header(self) -> VolumeHeader | None:
        """The header of a file that nibabel reads (NIfTI, Analyze, MGH, AFNI), None for other inputs.

        Raises InputError if it is broken, or if the other file of a pair is missing.
        """
        return read_volume_header(self.source.path) if self._is_nibabel_file else None

    @cached_property
    def parts(self) -> tuple[Path, ...]:
        """The files that the input consists of (`files_of_input`), or those of the chosen volume; raises InputError, OSError."""
        return tuple(self.volume.files) if self._is_chosen else files_of_input(self.source.path)

    @cached_property
    def parts_beside(self) -> dict[str, tuple[Path, ...]]:
        """The files that each file in `Source.beside` consists of; raises InputError, OSError."""
        return {key: files_of_input(value) for key, value in self.source.beside if isinstance(value, Path)}

    @cached_property
    def hashed(self) -> tuple[HashedFile, ...]:
        """`parts`, each hashed. Raises InputError, also for a file that changed since its header was read; OSError."""
        found = tuple(map(hash_file, self.parts))
        for file in found:
            if self._stamps.get(file.path, file.stamp) != file.stamp:
                raise changed(file.path)
        return found

    @cached_property
    def hashed_beside(self) -> dict[str, tuple[HashedFile, ...]]:
        """`parts_beside`, each hashed; raises InputError, OSError."""
        return {key: tuple(map(hash_file, files)) for key, files in self.parts_beside.items()}

    @cached_property
    def digest(self) -> str:
        """The hex SHA-256 that names the input: of its file, or of the lines `HASH  NAME` of its files; raises as `hashed`."""
        if self._is_chosen:
            return digest_of_hashed(self.hashed, by_hash=True)
        return _digest(self.source.path, self.hashed)

    @cached_property
    def beside(self) -> dict[str, dict[str, Any]]:
        """Name, None for what is no file, and hex SHA-256 of each entry of `Source.beside`; raises as `hashed`."""
        return {key: self._identity(key, value) for key, value in self.source.beside}

    def take_hashes(self) -> None:
        """Hash the files of the input now, before they are read; raises as `hashed`."""
        self.digest, self.beside  # noqa: B018 # each is kept

    def refuse_changed(self) -> None:
        """Raise InputError, with the cure, if a file of the input is another one than when it was hashed."""
        refuse_changed(chain(self.hashed, *self.hashed_beside.values()))

    @cached_property
    def unit(self) -> str:
        """Unit of the values that a reader gives: from a DICOM header, grey values for a photograph, else scanner units."""
        if self.source.suffix in PHOTOGRAPHS:
            return GREY_VALUES
        if not self.source.path.exists() or not self.files:
            return SCANNER_UNITS
        try:
            chosen = chosen_values(self.source.path.name, self.volume, self.source.choice)
        except InputError:  # another reader read it, or nothing did
            return SCANNER_UNITS
        return SCANNER_UNITS if chosen is None else chosen.unit

    @property
    def modality(self) -> str:
        """Modality of the DICOM volume, such as CT; empty for other inputs, and where several lie there and none is chosen."""
        if self.volume_header is not None or not there(self.source.path) or not self.files:
            return ""
        undecided = self.source.series is None and self.source.frame is None and len(self.volumes) > 1
        return "" if undecided else self.volume.modality

    @cached_property
    def resampled(self) -> bool:
        """True if the input is an irregular DICOM volume that is to be resampled onto an even grid."""
        return self.source.fix_geometry and bool(self.files) and not is_even(self.volume)

    @cached_property
    def reading(self) -> Reading:
        """What was decided in reading the input; empty where several volumes lie there and none is chosen."""
        if self.volume_header is not None:
            return self.volume_header.reading
        undecided = self.source.series is None and self.source.frame is None
        if not self.files or (undecided and len(self.volumes) > 1):
            return Reading()
        volume = self.volume
        return replace(
            reading_of_values(volume, self.source.choice),
            largest_distance_mm=largest_distance(volume),
            slice_step=volume.reading.slice_step or origin_of_step(volume),
            passed_over=self._passed_over or None,
        )

    @cached_property
    def choice(self) -> dict[str, str]:
        """The choices of values that decide which values of the input are read (`ValueChoice.described`)."""
        asked = self.source.choice.described()
        if not asked or not self.files or self.volume.values is None:
            return {}
        return {name: word for name, word in asked.items() if self.volume.values.depends_on(name)}

    @property
    def resampled_voxels(self) -> int:
        """Number of voxels of the even grid of a volume that is to be resampled; raises InputError if there is none."""
        return even_grid(self.source.path.name, self.volume).voxels(*self.volume.size)

    @property
    def frames(self) -> int:
        """Number of volumes among which a frame chooses: those in a file that nibabel reads, or of the only (or chosen) DICOM
        series.

        1 for other inputs. Raises InputError for a broken header.
        """
        if self.volume_header is not None:
            return self.volume_header.frames
        if not self.source.path.exists() or not self.files:
            return 1
        wanted = self.source.series
        series = [volume.series for volume in self.volumes if wanted in (None, volume.key, volume.series)]
        return len(series) if len(set(series)) == 1 else 1

    def check(self, channels: int | None) -> None:
        """Raise InputError, with the cure, if the input is missing, empty, damaged, 4D without a frame, several series, or would
        read other files than its own.

        channels: number of input channels of the network, None if unknown; a 4D file of that many volumes is one image.
        """
        path = self.source.path
        if not there(path):
            raise not_fetched(path.name) if is_dangling(path) else InputError(f"{path}: no such file or folder.")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path.name}: the file is empty.")
        self.check_own()
        if path.is_dir():
            if not self.files:
                raise InputError(f"{path.name}: no DICOM file in this folder.")
            self._check_volume()
            return
        if self.volume_header is not None:
            self.volume_header.check()
        if self.files:
            self._check_volume()
        else:
            self._check_frame(channels)

    def check_own(self) -> None:
        """Raise InputError if the input would read other files than its own, or is not of one patient, study and place."""
        refuse_bruker(self.source.path)
        self.parts, self.parts_beside  # noqa: B018 # what reads other files is refused
        if self.files:
            for volume in [self.volume] if self._is_chosen else self.volumes:
                check_one_patient(self.source.path.name, volume.disagreeing)

    def readable_path(self, folder: Path) -> Path:
        """A path that holds only the chosen volume, for any MONAI reader: the source's own, or one made in `folder`.

        Of a 4D file, the chosen frame as a 3D NIfTI with the same affine; of a folder of several series, or with
        results of earlier runs, links to the files of the volume; of a volume to be resampled, a NIfTI file on an even grid.
        """
        if self.resampled:
            return self._regridded(folder)
        if self._is_chosen or self._beside_results:
            return self._links(folder)
        if self.source.frame is None or self.volume_header is None or self.frames == 1:
            return self.source.path
        return self._frame(folder, self.source.frame)

    @property
    def readable_volume(self) -> DicomVolume | None:
        """The DICOM volume that lies at `readable_path`; None if no DICOM lies there."""
        return self.volume if self.files and not self.resampled else None

    @property
    def _is_chosen(self) -> bool:
        """True if a series, or a frame of a DICOM folder, was chosen: the input is then the files of one volume."""
        return self.source.series is not None or (self.source.frame is not None and self.source.path.is_dir())

    @property
    def _passed_over(self) -> dict[str, int]:
        """Number of objects without an image among the DICOM files, by their names in `Reading.passed_over`."""
        kinds = [file.refusal.kind for file in self.files if isinstance(file.refusal, NoImageError)]
        return dict(sorted(Counter(OWN_MAP if kind.own else kind.name for kind in kinds).items()))

    @property
    def _beside_results(self) -> bool:
        """True for a DICOM folder that holds results of earlier runs, among which readers would look for images too."""
        path = self.source.path
        return path.is_dir() and bool(results_in(path, os.listdir(path)))

    @cached_property
    def _is_nibabel_file(self) -> bool:
        return is_nibabel_file(self.source.path)

    def _identity(self, key: str, value: Any) -> dict[str, Any]:
        """Names and hashes of a file; of another value the hash alone, as it may tell something about a person."""
        if not isinstance(value, Path):
            text = json.dumps(value, sort_keys=True, default=str)
            return {"file": None, "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}
        files = self.hashed_beside[key]
        return {"file": value.name, "sha256": _digest(value, files), "files": [file.described() for file in files]}

    def _check_volume(self) -> None:
        """DICOM must hold one volume, or the chosen series must be one; only one that is to be resampled may be uneven."""
        name = self.source.path.name
        if self.resampled:
            check_placed(name, self.volume)
            even_grid(name, self.volume)
        else:
            check_volume(name, self.volume)
        chosen_values(name, self.volume, self.source.choice)

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
        target = folder / f"{self.source.name}.nii"
        nib.save(self.volume_header.frame(frame), target)  # type: ignore[union-attr]
        return target

    def _regridded(self, folder: Path) -> Path:
        import itk

        from monai_ifim.io.dicom.pixels import decoded

        name, volume = self.source.path.name, self.volume
        check_placed(name, volume)
        grid = even_grid(name, volume)
        slices = itk.array_from_image(decoded(name, volume, self.source.choice)).astype("float32")
        target = folder / f"{self.source.name}.nii"
        image = nib.Nifti1Image(resampled(grid, slices), grid.affine)
        image.set_qform(grid.affine, 1)
        nib.save(image, target)
        return target


def _digest(path: Path, files: tuple[HashedFile, ...]) -> str:
    alone = len(files) == 1 and not path.is_dir()
    return files[0].sha256 if alone else digest_of_hashed(files)
