"""How often the loop over the columns of the factor waits for a CUDA device, as PyTorch counts it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from benchmarks.approximate import SectionSkipped
from benchmarks.networks import Subject, densenet121
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import decompose
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.exact import whole_factor

CLASSES = (3, 9)


def waits(setting: Setting) -> list[Row]:
    """Waits of the loop, which are to be none, and of whole decompositions, with which setting up and the eigenproblem count."""
    if setting.device.type != "cuda":
        raise SectionSkipped("PyTorch counts waits for CUDA devices only")
    rows = []
    for classes in CLASSES:
        one = densenet121(classes, setting.size(128, 32), setting.device)
        rows.append(Row("waits of the loop", one.title, _counted(_loop(one)), Bar(0, False)))
        rows.append(Row("waits of a decomposition", one.title, _counted(_whole(one))))
    return rows


def _loop(one: Subject) -> Callable[[], object]:
    with evaluation_mode(one.network):
        jacobian = Jacobian(one.network, one.image)
    factor = Factor(jacobian, CategoricalHead().square_root(jacobian.output))
    return lambda: whole_factor(factor, FactorRows(one.image))


def _whole(one: Subject) -> Callable[[], object]:
    return lambda: decompose(one.network, one.image, head="categorical", method="exact", verify="never")


def _counted(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(one.message) for one in found)
