"""Formats of images by their first bytes, as far as MONAI's own readers decode them without opening other files unasked.

ITK tries many old formats by their content, some of which read whatever lies in the same folder (GE, Siemens) or any file that
the image names (HDF5, MINC, Stimulate); Pillow would start another program for PostScript.
"""

from __future__ import annotations

import re
from pathlib import Path

from monai_ifim.io.image_files.briks import SUFFIXES as AFNI
from monai_ifim.io.image_files.metaimage import SUFFIXES as METAIMAGE
from monai_ifim.io.image_files.pairs import SIZES
from monai_ifim.io.image_files.pairs import SUFFIXES as PAIRS

NIFTI = (".nii", ".nii.gz")
MGH = (".mgh", ".mgz", ".mgh.gz")
NUMPY = (".npy", ".npz")  # read by numpy alone, by their names
LONGEST_BEGINNING = 132
BEGINNINGS = re.compile(
    rb"NRRD000|\x89PNG\r\n\x1a\n|\xff\xd8\xff|BM|GIF8|RIFF....WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+|\x93NUMPY|PK\x03\x04"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|# vtk DataFile Version",
    flags=re.DOTALL,
)


def is_known_format(path: Path) -> bool:
    """True for a file that begins as one of these formats and whose name is of that format where readers go by names."""
    name = path.name.lower()
    if name.endswith((*NIFTI, *PAIRS, *MGH, *AFNI, *METAIMAGE, *NUMPY)):  # their own checks are stricter
        return True
    with path.open("rb") as file:
        beginning = file.read(LONGEST_BEGINNING)
    if beginning[:4] in SIZES:  # NIfTI or Analyze: niftilib would look for files of other names
        return False
    return beginning[128:] == b"DICM" or BEGINNINGS.match(beginning) is not None
