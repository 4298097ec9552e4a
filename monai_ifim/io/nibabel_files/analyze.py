"""Analyze 7.5 (dbh.h), as SPM and nibabel read it. The format states no place and no left and right; SPM put them into a .mat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.spm2analyze import Spm2AnalyzeHeader, Spm2AnalyzeImage

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.geometry import Affine
from monai_ifim.io.image_files.compression import holder, unpacked
from monai_ifim.io.nibabel_files.header import (
    VolumeHeader,
    check_affine,
    check_length,
    check_shape,
    check_steps,
    check_type,
    stated_shape,
)

MILLIMETRES = (b"", b"mm")  # `vox_units`
UNTURNED = (b"", b"0", b"\xff")  # `orient`: transverse unflipped (0), and what programs write that do not use the field
LARGEST_MAT = 2**16  # bytes; an affine has some hundred, and one for each of a thousand volumes fits
AS_NIFTI = "write it as NIfTI with its true affine (nibabel: nibabel.Nifti1Image(image.get_fdata(), affine))"


@dataclass(frozen=True, eq=False)
class AnalyzeHeader(VolumeHeader):
    """The header of an Analyze pair. stated: as it is in the file; mat: SPM's file of its affine, None if there is none."""

    stated: Any
    mat: Path | None

    @property
    def shape(self) -> tuple[int, ...]:
        """As stated; empty for a number of axes that the format does not have."""
        return stated_shape(self.stated)

    @property
    def bytes_per_voxel(self) -> int:
        """As stated; raises nibabel's error for a type that SPM does not have."""
        return int(self.stated.get_data_dtype().itemsize)

    @property
    def affine(self) -> Affine:
        """Of SPM's .mat, or else the voxel sizes with nibabel's directions and origin."""
        return np.asarray(self._image.affine, dtype=np.float64)

    @property
    def place(self) -> str:
        """SPM's .mat, or "assumed"."""
        return "assumed" if self.mat is None else "SPM's .mat"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Left and right and the origin, where no .mat states them; the scale of the voxels."""
        said = []
        if self.mat is None:
            zero = "the origin in its header" if np.any(self.affine[:3, 3] != self._centred) else "the middle of the image"
            said.append(
                "Analyze 7.5 does not state left and right: as in SPM and nibabel, x is taken to run from right to left, and "
                f"{zero} as zero."
            )
        elif self._flipped:
            said.append("its .mat does not state left and right: as in SPM and nibabel, x is taken to run from right to left.")
        slope, intercept = self.stated.get_slope_inter()
        if (slope, intercept) not in ((None, None), (1.0, 0.0)):
            said.append(f"its voxels are multiplied by {slope:g}, and {intercept:g} added, as SPM states in its header.")
        return tuple(said)

    def check(self) -> None:
        """Raise InputError, with the cure, for a header that is damaged or that nibabel and others read differently."""
        name = self.path.name
        check_shape(name, self.shape)
        check_steps(name, self.stated["pixdim"][1:4], self.shape, AS_NIFTI)
        check_type(name, self.stated, "datatype")
        check_length(self)
        if self._text("vox_units").lower() not in MILLIMETRES:
            raise InputError(f"{name}: its header states lengths in another unit than mm: {AS_NIFTI}, in mm.")
        if self.mat is None and self._text("orient") not in UNTURNED:
            raise InputError(
                f"{name}: its header states another orientation than transverse, which nibabel and SPM do not follow and others "
                f"do: {AS_NIFTI}."
            )
        usual = float(self.stated["scl_slope"])
        if not (np.isfinite(usual) and usual) and self.stated.get_slope_inter() != (None, None):
            raise InputError(
                f"{name}: its header scales the voxels by the calibrated and the stored maximum, which programs follow or not: "
                f"{AS_NIFTI}."
            )
        check_affine(name, self.affine, AS_NIFTI)

    def open(self) -> Any:
        """A nibabel image of its own, its voxels not read yet."""
        files = {"header": holder(self.path), "image": holder(self.voxels)}
        return Spm2AnalyzeImage.from_file_map(files | {"mat": FileHolder(fileobj=BytesIO(self._mat_content))})

    def _text(self, field: str) -> bytes:
        return bytes(self.stated[field].tobytes()).strip(b" \0")

    @cached_property
    def _image(self) -> Any:
        if self.mat is not None:
            self._matrices  # noqa: B018 # says why a .mat is refused
        try:
            return self.open()
        except Exception as error:
            raise InputError(f"{self.path.name}: not a readable Analyze file ({unquoted(error)}): copy it again.") from redacted(
                error
            )

    @cached_property
    def _mat_content(self) -> bytes:
        if self.mat is None:
            return b""
        with self.mat.open("rb") as file:
            content = file.read(LARGEST_MAT + 1)
        if not content or len(content) > LARGEST_MAT:
            raise self._no_affine()
        return content

    @cached_property
    def _matrices(self) -> dict[str, Any]:
        """What SPM states: `mat`, or only `M`, which says nothing about left and right."""
        from scipy.io import loadmat

        try:
            found = loadmat(BytesIO(self._mat_content), variable_names=["mat", "M"])
        except Exception as error:
            raise self._no_affine() from redacted(error)
        matrices = {name: found[name] for name in ("mat", "M") if name in found}
        if not matrices or any(matrix.dtype.kind not in "fiu" or matrix.shape[:2] != (4, 4) for matrix in matrices.values()):
            raise self._no_affine()
        return matrices

    @property
    def _flipped(self) -> bool:
        return self.mat is not None and "mat" not in self._matrices

    @property
    def _centred(self) -> Any:
        sizes = np.array((*self.shape[:3], 1, 1)[:3])
        return -self.affine[:3, :3] @ ((sizes - 1) / 2)

    def _no_affine(self) -> InputError:
        return InputError(f"{self.path.name}: the .mat beside it is no affine of SPM: move it away, or {AS_NIFTI}.")


def read_analyze_header(path: Path, voxels: Path, mat: Path | None) -> AnalyzeHeader:
    """Read the header; raises InputError if it is broken off, OSError."""
    with unpacked(path) as file:
        block = file.read(Spm2AnalyzeHeader.sizeof_hdr)
    if len(block) < Spm2AnalyzeHeader.sizeof_hdr:
        raise InputError(f"{path.name}: its header breaks off: copy it again.")
    return AnalyzeHeader(path, voxels, Spm2AnalyzeHeader(block, check=False), mat)
