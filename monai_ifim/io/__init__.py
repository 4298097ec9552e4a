"""Files and the world frame: inputs and their refusals, NIfTI, sidecars, the files of a case.

Names are imported on first use, so that looking up an installed config costs no import of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_ifim.io.case import Companions, WrittenCase, write_case
    from monai_ifim.io.case_files import sidecar_path
    from monai_ifim.io.case_maps import CaseMaps, check_contents
    from monai_ifim.io.dicom.reader import DicomReader, register_dicom_reader
    from monai_ifim.io.errors import GeometryError, InputError, OutputError
    from monai_ifim.io.maps import MapContent
    from monai_ifim.io.model import ModelIdentity, identify_bundle
    from monai_ifim.io.opened_source import OpenedSource
    from monai_ifim.io.sidecar import CaseFacts, InputIdentity, read_sidecar
    from monai_ifim.io.source import Source
    from monai_ifim.options import CONTENTS

_HOMES = {
    "CONTENTS": "case_maps",
    "CaseFacts": "sidecar",
    "CaseMaps": "case_maps",
    "Companions": "case",
    "DicomReader": "dicom.reader",
    "GeometryError": "errors",
    "InputError": "errors",
    "InputIdentity": "sidecar",
    "MapContent": "maps",
    "ModelIdentity": "model",
    "OpenedSource": "opened_source",
    "OutputError": "errors",
    "Source": "source",
    "WrittenCase": "case",
    "check_contents": "case_maps",
    "identify_bundle": "model",
    "read_sidecar": "sidecar",
    "register_dicom_reader": "dicom.reader",
    "sidecar_path": "case_files",
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
    "MapContent",
    "ModelIdentity",
    "OpenedSource",
    "OutputError",
    "Source",
    "WrittenCase",
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
