"""A batch as a whole or in parts, as memory allows: the plan, one part's passes, and the parts joined again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monai_ifim.core.assembly import assemble, record_of
from monai_ifim.core.decomposition import Decomposition, joined
from monai_ifim.core.errors import MemoryWarning, NetworkError, warn_caller
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.choice import resolve_head
from monai_ifim.core.heads.outputs import last_operation
from monai_ifim.core.memory.checkpointing import checkpointed
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.live_memory import LiveMemory, storages_of
from monai_ifim.core.memory.offload import Offload, SavedActivations, return_freed_memory
from monai_ifim.core.memory.plan import BudgetExceededError, MemoryPlan, budget_error, plan_memory, survey_image
from monai_ifim.core.memory.row_storage import RowShelf
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.metric import check_self_adjoint
from monai_ifim.core.operator.predictor import Predictor, check_independence
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.adaptive import adaptive_columns
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.solvers.choice import choose_method
from monai_ifim.core.solvers.exact import whole_factor
from monai_ifim.core.solvers.lanczos import leading_pairs, most_steps

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
RESULTS = 8  # images' worth of memory of high, low, diag F in float64 and what they are made from


@dataclass(frozen=True)
class Task:
    """What is to be done with the images of a part. asked: the settings as given; settings: with the metric of this part."""

    predictor: Predictor
    image: Tensor
    asked: Settings
    settings: Settings
    advance: Callable[[int, int | None], None]

    def part(self, items: slice) -> Task:
        """The task for some of the images."""
        metric = self.settings.input_metric
        settings = self.settings if metric is None else replace(self.settings, metric=metric.part(items))
        return replace(self, predictor=self.predictor.part(items), image=self.image[items], settings=settings)

    def passes(self) -> AbstractContextManager[object]:
        """The context that a forward pass runs in."""
        dtype = AUTOCAST.get(self.settings.precision or "")
        return nullcontext() if dtype is None else torch.autocast(self.image.device.type, dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Output [B, *output] in the chosen precision."""
        with self.passes():
            return self.predictor(image)


def decompose_in_parts(predictor: Predictor, image: Tensor, asked: Settings, progress: bool) -> Decomposition:
    """Decompose a batch; as many images at a time as the budget, or an accelerator's memory, has room for."""
    settings, metric = asked, asked.input_metric
    if metric is not None:
        metric = metric.bound(image)
        check_self_adjoint(metric, image, torch.Generator().manual_seed(settings.seed))
        settings = replace(settings, metric=metric)
    task = Task(predictor, image, asked, settings, _print_progress if progress else _no_progress)
    plan = MemoryPlan(image.shape[0])
    if settings.budget is not None:
        plan = _planned(task, settings.budget)
    parts, start, warned = [], 0, False
    while start < image.shape[0]:
        try:
            parts.append(_decompose_part(task.part(slice(start, start + plan.batch)), plan))
        except torch.OutOfMemoryError:
            if plan == plan.strictest():
                raise
            plan = replace(plan, batch=max(1, plan.batch // 2)) if plan.batch > 1 else plan.strictest()
            if not warned:
                warn_caller(
                    "the device's memory ran out: going on with fewer images at a time and less kept in memory, which is slower.",
                    MemoryWarning,
                )
            warned = True
            continue
        start += plan.batch
    if progress:
        sys.stderr.write("\n")
    return joined(parts, predictor, image, settings.input_metric)


def _planned(task: Task, budget: int) -> MemoryPlan:
    """The plan for the budget, from one forward pass of the first image."""
    first = task.part(slice(0, 1))
    survey = survey_image(first.forward, task.predictor.bare, first.image)
    columns = resolve_head(task.settings.head, survey.output).square_root(survey.output).columns
    if task.predictor.spatial:  # whose rows are those of the Lanczos steps
        columns = min(columns, most_steps(task.settings, columns))
    rank = task.settings.rank or columns
    return plan_memory(survey, task.predictor.bare, task.image, budget, columns, min(rank, columns) + RESULTS)


def _decompose_part(task: Task, plan: MemoryPlan) -> Decomposition:
    """The images of `task` in shared passes. Raises IFIMError where even the strictest plan exceeds the budget."""
    budget = task.settings.budget
    try:
        return _run_plan(task, plan)
    except BudgetExceededError as exceeded:
        strictest = plan.strictest()
        if plan == strictest or budget is None:
            raise budget_error(budget or 0, exceeded.needed) from None
    return _decompose_part(task, strictest)


def _run_plan(task: Task, plan: MemoryPlan) -> Decomposition:
    offload = Offload()
    generator = torch.Generator().manual_seed(task.settings.seed)
    with ExitStack() as stack:
        if plan.frugal or task.settings.method == "matrix_free" or task.predictor.spatial:
            stack.enter_context(lean_layers(task.predictor.bare))
        stack.enter_context(checkpointed(plan.blocks))
        with _metered(task, plan) as check:
            with _saved_activations(task, plan, offload):
                advance = _trimming(task.advance) if plan.frugal else task.advance
                jacobian = Jacobian(task.forward, task.image, task.passes, advance, dual_numbers=plan.frugal)
            head = _checked_head(task, jacobian)
            root = head.square_root(jacobian.output)
            factor = Factor(jacobian, root, task.settings.input_metric)
            if plan.tight and jacobian.differentiable:
                factor.multiply(torch.ones_like(root.scales))
        spare = check()
        method, reason = choose_method(task.settings, head, root)
        allowance = plan.rows if plan.rows is None else min(plan.rows, spare)
        rows = FactorRows(task.image, shelve=RowShelf(offload, allowance).shelve, block_elements=plan.block_elements)
        row_eps = _row_eps(task, jacobian.output)
        subspace = _subspace(task, factor, rows, method, row_eps, generator)
        jacobian.release()
        if plan.frugal:
            return_freed_memory()  # of the passes, before the eigenproblem takes its own
        record = record_of(task.asked, task.settings.input_metric, head, task.image, subspace, jacobian.products, reason)
        return assemble(task.predictor, head, task.image, jacobian.output, subspace, task.settings, row_eps, record)


def _saved_activations(task: Task, plan: MemoryPlan, offload: Offload) -> AbstractContextManager[None]:
    """The context of the forward pass whose graph is kept."""
    if plan.activations is None:
        return nullcontext()
    return SavedActivations(offload, plan.activations, storages_of(task.predictor.bare, task.image)).hooks()


@contextmanager
def _metered(task: Task, plan: MemoryPlan) -> Iterator[Callable[[], int]]:
    """Counts bytes inside where a budget holds; what is yielded says how many it left, or raises BudgetExceededError."""
    budget = task.settings.budget
    if not plan.tight or budget is None:
        yield lambda: sys.maxsize
        return
    with LiveMemory() as live:

        def check() -> int:
            if live.peak > budget:
                raise BudgetExceededError(live.peak)
            return int(budget - live.peak)

        yield check


def _subspace(task: Task, factor: Factor, rows: FactorRows, method: str, row_eps: float, generator: torch.Generator) -> Subspace:
    """Rows by the method chosen; zeros where the network ignores its image; NetworkError where it cannot be differentiated."""
    if not factor.jacobian.differentiable:
        return _flat(task, factor, rows)
    if method == "matrix_free":
        subspace = leading_pairs(factor, rows, task.settings, row_eps, generator)
    elif method == "adaptive":
        subspace = adaptive_columns(factor, rows, task.settings, row_eps, generator)
    else:
        subspace = whole_factor(factor, rows)
    if not factor.jacobian.reached:
        return _flat(task, factor, FactorRows(task.image))
    if not rows.finite():
        raise NetworkError(
            "a vector-Jacobian product is NaN or infinite though image and output are finite: look for 0/0, sqrt(0) or "
            "log(0) in the network's backward pass, or use a wider dtype."
        )
    return subspace


def _flat(task: Task, factor: Factor, rows: FactorRows) -> Subspace:
    """No rows, for a network whose answer is the same for every image; NetworkError where a gradient was cut instead."""
    image, output = task.image, factor.jacobian.output
    with torch.no_grad():
        others = [torch.zeros_like(image), 1 - 2 * image, image.flip(-1) + image.mean()]
        constant = all(torch.equal(task.forward(other), output) for other in others)
    if not constant:
        raise NetworkError(
            "no gradient flows from the network's output to its image: ONNX and TensorRT engines, numpy code, .detach(), "
            "torch.no_grad or inference_mode inside forward() and dynamic quantisation cut it. Pass the differentiable PyTorch "
            "module or TorchScript."
        )
    nothing = torch.zeros_like(factor.root.scales[:, 0])
    return Subspace("exact", rows, factor.root.score[:, :0], nothing, nothing)


def _checked_head(task: Task, jacobian: Jacobian) -> Head:
    output = jacobian.output
    if not bool(torch.isfinite(output).all()):
        raise NetworkError(
            "the network's output is NaN or infinite for this image: check its weights and the scaling of the image, or use "
            "a wider dtype; classes masked with -inf are left out of the output or masked with a large finite number."
        )
    with task.passes():
        check_independence(task.predictor, task.image, output)
    network = task.predictor.bare
    return resolve_head(task.settings.head, output, last_operation(jacobian.graph, getattr(network, "ends_in", network)))


def _row_eps(task: Task, output: Tensor) -> float:
    """Machine epsilon of the coarsest dtype that the passes ran in."""
    dtypes, kind = [task.image.dtype, output.dtype], task.image.device.type
    with task.passes():
        if torch.is_autocast_enabled(kind):
            dtypes.append(torch.get_autocast_dtype(kind))
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _trimming(advance: Callable[[int, int | None], None]) -> Callable[[int, int | None], None]:
    """After each product, memory that is free goes back to the system."""

    def trimmed(done: int, expected: int | None) -> None:
        return_freed_memory()
        advance(done, expected)

    return trimmed


def _no_progress(done: int, expected: int | None) -> None:
    return None


def _print_progress(done: int, expected: int | None) -> None:
    sys.stderr.write(f"\rJacobian products: {done}" + (f"/{expected}" if expected else ""))
    sys.stderr.flush()
