"""`read_volume_header`: the header of any file that nibabel reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_ifim.io.image_files import briks, pairs
from monai_ifim.io.image_files.formats import MGH, NIFTI
from monai_ifim.io.nibabel_files.afni import read_afni_header
from monai_ifim.io.nibabel_files.analyze import read_analyze_header
from monai_ifim.io.nibabel_files.header import VolumeHeader
from monai_ifim.io.nibabel_files.mgh import read_mgh_header
from monai_ifim.io.nibabel_files.nifti import NiftiHeader, open_nifti, read_nifti_header


def is_nibabel_file(path: Path) -> bool:
    """True for a file that nibabel reads, by its name; of a pair, by its header too."""
    name = path.name.lower()
    if not name.endswith((*NIFTI, *MGH, *briks.SUFFIXES, *pairs.SUFFIXES)) or path.is_dir():
        return False
    return not name.endswith(pairs.SUFFIXES) or pairs.is_header(pairs.header_of_pair(path))


def open_volume(path: Path) -> Any:
    """nibabel's image of a file for which `is_nibabel_file` is true, its voxels not read yet.

    Of other formats than NIfTI the header is checked: no reader of MONAI's would take them. Raises InputError, OSError, and what
    nibabel raises.
    """
    if path.name.lower().endswith(NIFTI):
        return open_nifti(path)
    header = read_volume_header(path)
    if not isinstance(header, NiftiHeader):
        header.check()
    return header.open()


def read_volume_header(path: Path) -> VolumeHeader:
    """Read the header of a file for which `is_nibabel_file` is true.

    Raises InputError for one that is broken, or whose other file is missing; OSError.
    """
    name = path.name.lower()
    if name.endswith(MGH):
        return read_mgh_header(path)
    if name.endswith(briks.SUFFIXES):
        return read_afni_header(*briks.files_of_dataset(path))
    if not name.endswith(pairs.SUFFIXES):
        return read_nifti_header(path)
    header, voxels, *spm = pairs.files_of_pair(path)
    if pairs.is_analyze(header):
        return read_analyze_header(header, voxels, spm[0] if spm else None)
    return read_nifti_header(header, voxels)
