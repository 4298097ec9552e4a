"""Input-dependent Fisher information of medical image classifiers, for MONAI.

Public names are imported on first use, so `import monai_ifim` is fast and `core` never loads MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from monai_ifim.version import __version__

if TYPE_CHECKING:
    from monai_ifim.adapt import IFIMDecompose, IFIMDecomposed, IFIMHandler, IFIMInferer, SaveIFIM, SaveIFIMd, decompose_scan
    from monai_ifim.core import Decomposition, Head, IFIMError, decompose
    from monai_ifim.report.cohort.results_page import write_page
    from monai_ifim.run.cohort import read_cases

_HOMES = {
    "Decomposition": "monai_ifim.core",
    "Head": "monai_ifim.core",
    "IFIMError": "monai_ifim.core",
    "decompose": "monai_ifim.core",
    "IFIMDecompose": "monai_ifim.adapt",
    "IFIMDecomposed": "monai_ifim.adapt",
    "IFIMHandler": "monai_ifim.adapt",
    "IFIMInferer": "monai_ifim.adapt",
    "SaveIFIM": "monai_ifim.adapt",
    "SaveIFIMd": "monai_ifim.adapt",
    "decompose_scan": "monai_ifim.adapt",
    "read_cases": "monai_ifim.run.cohort",
    "write_page": "monai_ifim.report.cohort.results_page",
}

__all__ = [
    "Decomposition",
    "Head",
    "IFIMDecompose",
    "IFIMDecomposed",
    "IFIMError",
    "IFIMHandler",
    "IFIMInferer",
    "SaveIFIM",
    "SaveIFIMd",
    "__version__",
    "decompose",
    "decompose_scan",
    "read_cases",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'monai_ifim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
