"""Files of volumes that nibabel reads and does not write, or writes in one way only: AFNI's, and gzip under any name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def write_afni(
    folder: Path, values: Array, affine: Array, name: str = "scan+orig", packed: bool = False, **attributes: Any
) -> Path:
    """A dataset with its HEAD as AFNI writes it; gives the HEAD. affine: RAS; attributes: in place of others, None for none."""
    lps = np.diag([-1.0, -1, 1]) @ affine[:3]
    world = np.abs(lps[:, :3] / np.linalg.norm(lps[:, :3], axis=0)).argmax(axis=0)
    sizes = np.linalg.norm(lps[:, :3], axis=0)
    signs = np.sign(lps[world, range(3)])
    kinds = {"u1": 0, "i2": 1, "f4": 3, "c8": 5}
    count = values.shape[3] if values.ndim == 4 else 1
    stated: dict[str, Any] = {
        "TYPESTRING": "3DIM_HEAD_ANAT",
        "DATASET_RANK": [3, count],
        "DATASET_DIMENSIONS": [*values.shape[:3], 0, 0],
        "ORIENT_SPECIFIC": [int(2 * axis + (sign < 0)) for axis, sign in zip(world, signs, strict=True)],
        "ORIGIN": [float(lps[axis, 3]) for axis in world],
        "DELTA": [float(size * sign) for size, sign in zip(sizes, signs, strict=True)],
        "IJK_TO_DICOM_REAL": [float(number) for number in lps.ravel()],
        "BRICK_TYPES": [kinds[values.dtype.str[1:]]] * count,
        "BRICK_FLOAT_FACS": [0.0] * count,
        "BYTEORDER_STRING": "LSB_FIRST",
        "HISTORY_NOTE": "[somebody: a long note]",
    } | attributes
    text = "".join(_attribute(key, value) for key, value in stated.items() if value is not None)
    (folder / f"{name}.HEAD").write_text(text)
    content = np.asarray(values, values.dtype.newbyteorder("<")).tobytes(order="F")
    (folder / f"{name}.BRIK{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return folder / f"{name}.HEAD"


def _attribute(name: str, value: Any) -> str:
    if isinstance(value, str):
        return f"\ntype = string-attribute\nname = {name}\ncount = {len(value) + 1}\n'{value}~\n"
    kind = "integer" if all(isinstance(number, int) for number in value) else "float"
    return f"\ntype = {kind}-attribute\nname = {name}\ncount = {len(value)}\n {' '.join(map(repr, value))}\n"


def write_analyze(path: Path, values: Array, sizes: tuple[float, float, float] = (2.0, 3.0, 4.0), **fields: Any) -> Path:
    """A pair of Analyze 7.5 without a .mat; gives the header. fields: of the header, in place of nibabel's."""
    image = nib.AnalyzeImage(values, np.diag([*sizes, 1.0]))
    nib.save(image, path.with_suffix(".img"))
    block = bytearray(path.with_suffix(".hdr").read_bytes())
    header = nib.spm2analyze.Spm2AnalyzeHeader(bytes(block), check=False)
    for name, value in fields.items():
        header[name] = value
    path.with_suffix(".hdr").write_bytes(header.binaryblock)
    return path.with_suffix(".hdr")
