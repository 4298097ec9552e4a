"""Files and the world frame: inputs and their refusals, NIfTI, sidecars, the files of a case.

Names are imported on first use, so that looking up an installed config costs no import of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_ifim.io.case import CaseMaps, Companions, check_contents, sidecar_path, write_case
    from monai_ifim.io.dicom.reader import DicomReader, register_dicom_reader
    from monai_ifim.io.errors import GeometryError, InputError, OutputError
    from monai_ifim.io.model import ModelIdentity, identify_bundle
    from monai_ifim.io.sidecar import CaseFacts, InputIdentity, read_sidecar
    from monai_ifim.io.source import Source
    from monai_ifim.options import CONTENTS

_HOMES = {
    "CONTENTS": "case",
    "CaseFacts": "sidecar",
    "CaseMaps": "case",
    "Companions": "case",
    "DicomReader": "dicom.reader",
    "GeometryError": "errors",
    "InputError": "errors",
    "InputIdentity": "sidecar",
    "ModelIdentity": "model",
    "OutputError": "errors",
    "Source": "source",
    "check_contents": "case",
    "identify_bundle": "model",
    "read_sidecar": "sidecar",
    "register_dicom_reader": "dicom.reader",
    "sidecar_path": "case",
    "write_case": "case",
}

__all__ = [
    "CONTENTS",
    "CaseFacts",
    "CaseMaps",
    "Companions",
    "DicomReader",
    "GeometryError",
    "InputError",
    "InputIdentity",
    "ModelIdentity",
    "OutputError",
    "Source",
    "check_contents",
    "identify_bundle",
    "read_sidecar",
    "register_dicom_reader",
    "sidecar_path",
    "write_case",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'monai_ifim.io' has no attribute {name!r}")
    return getattr(import_module(f"monai_ifim.io.{_HOMES[name]}"), name)
