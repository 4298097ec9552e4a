"""FreeSurfer's MGH and MGZ (https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat): big endian, RAS, mm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage, header_dtype

from monai_ifim.io.errors import InputError
from monai_ifim.io.geometry import Affine, same_grid, with_steps
from monai_ifim.io.image_files.compression import holder, unpacked
from monai_ifim.io.nibabel_files.header import (
    VolumeHeader,
    check_affine,
    check_length,
    check_shape,
    check_steps,
    check_type,
)

VERSION = 1
GOOD_RAS = "goodRASFlag"
AGAIN = "write it anew with its true place (mri_convert of FreeSurfer, or nibabel: nibabel.MGHImage(values, affine))"


@dataclass(frozen=True, eq=False)
class FreeSurferHeader(VolumeHeader):
    """The header of an MGH file. stated: nibabel's view of it; placed: whether it states where its voxels lie."""

    stated: Any
    placed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Without an axis of volumes where there is one volume."""
        return tuple(int(size) for size in self.stated.get_data_shape())

    @property
    def bytes_per_voxel(self) -> int:
        """As stated; raises nibabel's error for an unknown type."""
        return int(self.stated.get_data_dtype().itemsize)

    @property
    def affine(self) -> Affine:
        """From directions, voxel sizes and the place of voxel number dims / 2."""
        return np.asarray(self.stated.get_affine(), dtype=np.float64)

    def check(self) -> None:
        """See `VolumeHeader`."""
        name = self.path.name
        if int(self.stated["version"]) != VERSION:
            raise InputError(f"{name}: not a readable MGH file (version {int(self.stated['version'])}): copy it again.")
        check_shape(name, self.shape)
        if not self.placed:
            raise InputError(f"{name}: its header says that it states no place ({GOOD_RAS} 0), nor voxel sizes: {AGAIN}.")
        check_steps(name, self.stated["delta"], self.shape, AGAIN)
        check_type(name, self.stated, "type")
        check_length(self)
        check_affine(name, self.affine, AGAIN)
        if not same_grid(self.affine, with_steps(self.affine, self.stated["delta"], self.affine[:3, 3]), self.shape[:3], 0.1):
            raise InputError(f"{name}: its directions are no unit vectors and contradict its voxel sizes: {AGAIN}.")

    def open(self) -> Any:
        """A nibabel image of its own, its voxels not read yet. nibabel itself would unpack them to read what follows."""
        file = holder(self.path)
        proxy = ArrayProxy(file.filename if file.fileobj is None else file.fileobj, self.stated.copy())
        return MGHImage(proxy, self.affine, self.stated)


def read_mgh_header(path: Path) -> FreeSurferHeader:
    """Read the header; raises InputError if it is broken off, OSError."""
    with unpacked(path) as file:
        block = file.read(header_dtype.itemsize)
    if len(block) < header_dtype.itemsize:
        raise InputError(f"{path.name}: not a readable MGH file (its header breaks off): copy it again.")
    placed = bool(np.frombuffer(block, header_dtype)[GOOD_RAS][0] > 0)
    return FreeSurferHeader(path, path, MGHHeader(block, check=False), placed)
