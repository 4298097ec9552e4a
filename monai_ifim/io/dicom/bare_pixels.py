"""A copy of the pixels of a DICOM file without anything else in it, for a decoder that would change what it decodes."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, SecondaryCaptureImageStorage, generate_uid

PIXEL_MODULE = (  # PS3.3, C.7.6.3
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PlanarConfiguration", "PixelData",
)  # fmt: skip


def bare_copy(file: Path, folder: Path) -> Path:
    """A copy in `folder` of the pixels alone, as MONOCHROME2, so that ITK gives them as they are stored; it names nobody."""
    with disable_value_validation():  # its warnings would show what is in the header
        copy = pydicom.dcmread(file, specific_tags=list(PIXEL_MODULE))
        syntax = copy.file_meta.TransferSyntaxUID
        several = int(copy.get("NumberOfFrames") or 1) > 1
        copy.PhotometricInterpretation = "MONOCHROME2"
        copy.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage
        copy.SOPInstanceUID = generate_uid()
        copy.file_meta = FileMetaDataset()
        copy.file_meta.TransferSyntaxUID = syntax
        copy.preamble = None
        copy.save_as(folder / "pixels.dcm", enforce_file_format=True)
    return folder / "pixels.dcm"
