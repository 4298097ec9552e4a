"""Files and the world frame: inputs and their refusals, NIfTI, sidecars, the files of a case."""

from monai_ifim.io.case import CONTENTS, CaseMaps, check_contents, sidecar_path, write_case
from monai_ifim.io.errors import GeometryError, InputError, OutputError
from monai_ifim.io.model import ModelIdentity, identify_bundle
from monai_ifim.io.sidecar import InputIdentity, read_sidecar
from monai_ifim.io.source import Source

__all__ = [
    "CONTENTS",
    "CaseMaps",
    "GeometryError",
    "InputError",
    "InputIdentity",
    "ModelIdentity",
    "OutputError",
    "Source",
    "check_contents",
    "identify_bundle",
    "read_sidecar",
    "sidecar_path",
    "write_case",
]
