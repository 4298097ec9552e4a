"""AFNI's .HEAD and .BRIK (https://afni.nimh.nih.gov/pub/dist/doc/program_help/README.attributes.html): LPS, mm."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.brikhead import AFNIArrayProxy, AFNIHeader, AFNIImage, parse_AFNI_header

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.geometry import LPS_TO_RAS, Affine, same_grid, with_steps
from monai_ifim.io.image_files.compression import holder
from monai_ifim.io.nibabel_files.header import VolumeHeader, check_affine, check_length, check_shape, check_steps, check_type

LARGEST_HEAD = 2**24  # bytes; one of some thousand volumes has some hundred thousand
PLACES_TOLERANCE = 0.1  # voxels
OBLIQUE = np.radians(0.01)  # AFNI calls a dataset oblique from here on
AGAIN = "write it as NIfTI (AFNI: 3dAFNItoNIFTI), or renew its header (AFNI: 3drefit)"


@dataclass(frozen=True, eq=False)
class DatasetHeader(VolumeHeader):
    """The header of a dataset. stated: nibabel's view of it."""

    stated: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Without an axis of sub-bricks where there is one."""
        shape = tuple(int(size) for size in self.stated.get_data_shape())
        return shape[:3] if shape[3:] == (1,) else shape

    @property
    def bytes_per_voxel(self) -> int:
        """As stated."""
        return int(self.stated.get_data_dtype().itemsize)

    @property
    def affine(self) -> Affine:
        """IJK_TO_DICOM_REAL, which for an oblique dataset is the oblique place."""
        try:
            return np.asarray(self.stated.get_affine(), dtype=np.float64)
        except Exception as error:
            raise InputError(f"{self.path.name}: its header states no IJK_TO_DICOM_REAL, so no place: {AGAIN}.") from redacted(
                error
            )

    def check(self) -> None:
        """See `VolumeHeader`."""
        name = self.path.name
        check_shape(name, self.shape)
        check_steps(name, np.abs(self.stated.info["DELTA"]), self.shape, AGAIN)
        check_type(name, self.stated, "BRICK_TYPES")
        check_length(self)
        check_affine(name, self.affine, AGAIN)
        cardinal = self._cardinal()
        steps = with_steps(self.affine, np.abs(self.stated.info["DELTA"]), self.affine[:3, 3])
        expected = steps if self._is_oblique() or cardinal is None else cardinal
        if not same_grid(self.affine, expected, self.shape[:3], PLACES_TOLERANCE):
            raise InputError(
                f"{name}: its IJK_TO_DICOM_REAL contradicts its DELTA and ORIGIN, and programs choose differently: {AGAIN}."
            )

    def open(self) -> Any:
        """A nibabel image of its own, its voxels not read yet."""
        file = holder(self.voxels)
        proxy = AFNIArrayProxy(file.filename if file.fileobj is None else file.fileobj, self.stated.copy())
        return AFNIImage(proxy, self.affine, self.stated)

    def _is_oblique(self) -> bool:
        axes = np.abs(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))
        return bool(np.arccos(np.clip(axes.max(axis=0), -1, 1)).max() > OBLIQUE)

    def _cardinal(self) -> Affine | None:
        """The grid by ORIENT_SPECIFIC, DELTA and ORIGIN, which knows no oblique axes; None if they are not stated so."""
        info = self.stated.info
        try:
            world = [int(code) // 2 for code in info["ORIENT_SPECIFIC"]]  # R2L, L2R, P2A, A2P, I2S, S2I
            lps: Affine = np.zeros((4, 4))
            lps[world, range(3)], lps[world, 3], lps[3, 3] = info["DELTA"], info["ORIGIN"], 1
        except Exception:
            return None
        return LPS_TO_RAS @ lps


def read_afni_header(path: Path, voxels: Path) -> DatasetHeader:
    """Read the header; raises InputError if it is not one of AFNI, or lacks what nibabel needs, OSError."""
    with path.open("rb") as file:
        text = file.read(LARGEST_HEAD + 1)
    if len(text) > LARGEST_HEAD:
        raise InputError(f"{path.name}: a header of more than {LARGEST_HEAD} bytes: {AGAIN}.")
    try:
        lines = text.decode("latin-1").replace("\r\n", "\n").strip()
        return DatasetHeader(path, voxels, AFNIHeader(parse_AFNI_header(StringIO(lines + "\n"))))
    except Exception as error:
        raise InputError(
            f"{path.name}: not a readable header of AFNI ({unquoted(error)}): copy it again, or {AGAIN}."
        ) from redacted(error)
