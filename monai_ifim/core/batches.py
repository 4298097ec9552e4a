"""Decomposition of a batch in as many parts as memory requires: the plan, the passes of each part, the parts joined."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from monai_ifim.core.answer import AnswerFacts, asked_head, described_answer, described_volumes
from monai_ifim.core.assembly import assemble, compose_record
from monai_ifim.core.batch_part import BatchPart
from monai_ifim.core.convolutions.choice import ChosenKernels
from monai_ifim.core.decomposition import Decomposition, joined
from monai_ifim.core.errors import MemoryWarning, NetworkError, warn_caller
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.choice import answers_at_every_voxel
from monai_ifim.core.heads.outputs import last_operation
from monai_ifim.core.locality import LARGEST_PASS, coarse_search, radii
from monai_ifim.core.memory.checkpointing import checkpointed
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.live_memory import LiveMemory, storages_of
from monai_ifim.core.memory.offload import Offload, SavedActivations, return_freed_memory
from monai_ifim.core.memory.plan import BudgetExceededError, MemoryPlan, budget_error, plan_memory, survey_image
from monai_ifim.core.memory.row_storage import RowShelf
from monai_ifim.core.operator.convolutions import chosen_convolutions
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.metric import check_self_adjoint
from monai_ifim.core.operator.precision import coarsest_eps
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.operator.recurrence import differentiable_recurrence
from monai_ifim.core.operator.requirements import check_independence
from monai_ifim.core.operator.rows import FactorRows, all_finite
from monai_ifim.core.part_verification import directions_by_products, expectations_of, verify_part
from monai_ifim.core.pullback import pull_back
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.adaptive import adaptive_columns
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.solvers.choice import choose_method
from monai_ifim.core.solvers.exact import whole_factor
from monai_ifim.core.solvers.first_products import FirstProducts
from monai_ifim.core.solvers.krylov import basis_bytes
from monai_ifim.core.solvers.lanczos import leading_pairs, most_steps
from monai_ifim.core.solvers.watch import IterationState, Watch
from monai_ifim.core.verification.batch import BatchVerification
from monai_ifim.options import Method

Progress = Callable[[int, int | None], None]

RESULTS = 8  # memory of high, low, diag F in float64 and their temporaries, in units of an image
OF_TANGENTS = 8  # the same of tangents of coordinates, with the float64 copies that families work on
OF_ESTIMATES = 8  # the same of an estimate in float64, its error and their temporaries


def decompose_in_parts(
    predictor: Predictor,
    image: Tensor,
    asked: Settings,
    progress: bool | Progress = False,
    names: Sequence[str] = (),
    changes: Callable[[], Sequence[str]] = tuple,
    facts: AnswerFacts | None = None,
    trial: FirstProducts | None = None,
    watch: Watch | None = None,
) -> Decomposition:
    """Decompose a batch, as many images at a time as fit the memory budget and the memory of the device.

    progress: count the Jacobian products on standard error, or what is called after each with the numbers made and expected; what
    it raises ends the decomposition. names: of the images, for the record of their verification.
    changes: names of what passes have changed in the network. facts: what is known of the images besides their values.
    trial: makes the first products only, in place of a solver. watch: follows the iteration of the matrix-free method, in place
    of standard error.
    """
    facts = (facts or AnswerFacts()).of_batch(image)
    verification = BatchVerification.planned(predictor, image, asked, names, changes)
    settings, metric = asked, asked.input_metric
    if metric is not None:
        metric = metric.bound(image)
        check_self_adjoint(metric, image, torch.Generator().manual_seed(settings.seed))
        settings = replace(settings, metric=metric)
    follower = watch or _watch(progress)
    whole = BatchPart(predictor, image, asked, settings, _advance(progress), verification, facts, follower, trial=trial)
    plan = MemoryPlan(image.shape[0])
    if settings.budget is not None:
        plan = _planned(whole, settings.budget)
    parts, start, warned = [], 0, False
    while start < image.shape[0]:
        try:
            parts.append(_decompose_part(whole.part(slice(start, start + plan.batch)), plan))
        except torch.OutOfMemoryError:
            if plan == plan.strictest():
                raise
            plan = replace(plan, batch=max(1, plan.batch // 2)) if plan.batch > 1 else plan.strictest()
            if not warned:
                warn_caller(
                    "the device's memory is full: continuing with fewer images at a time and less in memory, which is slower.",
                    MemoryWarning,
                )
            warned = True
            continue
        start += plan.batch
    if progress is True:
        sys.stderr.write("\n")
    d = joined(parts, image)
    answer = described_answer(asked, facts, d.logits.shape[1])
    return replace(d, record=d.record | {"answer": answer, "verification": verification.finish(whole.forward, image)})


def _planned(whole: BatchPart, budget: int) -> MemoryPlan:
    """The plan for the budget, from one forward pass of the first image."""
    first, network = whole.part(slice(0, 1)), whole.predictor.running
    survey = survey_image(first.forward, network, first.image)
    head = asked_head(whole.settings, first.facts, survey.output)
    root = head.square_root(survey.output)
    rows = root.columns
    kept, results, basis = min(whole.settings.resolved.rank or rows, rows), RESULTS, 0
    if choose_method(whole.settings, head, root)[0] == "matrix_free":
        steps = most_steps(whole.settings, rows)
        basis = basis_bytes(rows, steps)
        kept, rows, results = min(kept, steps), steps + whole.settings.probes, RESULTS + OF_ESTIMATES
    components = kept if whole.settings.input_metric is None else 2 * kept  # eigenvectors, and eigenimages of a metric
    if whole.settings.families:
        results += OF_TANGENTS
        rows = 2 * rows if whole.settings.input_metric is not None else rows  # as they are before the metric, and after it
    return plan_memory(survey, network, whole.image, budget, rows, components + results, basis)


def _decompose_part(part: BatchPart, plan: MemoryPlan) -> Decomposition:
    """Decompose these images in shared passes; raises IFIMError if even the strictest plan exceeds the budget."""
    budget = part.settings.budget
    try:
        return _run_plan(part, plan)
    except BudgetExceededError as exceeded:
        strictest = plan.strictest()
        if plan == strictest or budget is None:
            raise budget_error(budget or 0, exceeded) from None
    return _decompose_part(part, strictest)


def _run_plan(part: BatchPart, plan: MemoryPlan) -> Decomposition:
    offload, kernels = Offload(), ChosenKernels()
    generator = torch.Generator().manual_seed(part.settings.seed)
    with ExitStack() as stack:
        stack.enter_context(differentiable_recurrence(part.predictor.running, part.image))
        if plan.frugal or part.settings.method == "matrix_free" or answers_at_every_voxel(part.settings.head):
            stack.enter_context(lean_layers(part.predictor.running, kernels))
        else:
            stack.enter_context(chosen_convolutions(part.predictor.running, part.image, kernels))
        stack.enter_context(checkpointed(plan.blocks, part.predictor.running))
        with _metered(part, plan) as check:
            with _saved_activations(part, plan, offload):
                advance = _trimming(part.advance) if plan.frugal else part.advance
                network = part.predictor.running
                jacobian = Jacobian(part.forward, part.image, part.passes, advance, plan.frugal, network)
            head = _checked_head(part, jacobian)
            root = head.square_root(jacobian.output)
            factor = Factor(jacobian, root, part.settings.input_metric)
            if plan.tight and jacobian.differentiable:
                factor.multiply(torch.ones_like(root.scales))
        spare = check()
        method, reason = choose_method(part.settings, head, root)
        allowance = plan.rows if plan.rows is None else min(plan.rows, spare)
        rows = FactorRows(part.image, shelve=RowShelf(offload, allowance).shelve, block_elements=plan.block_elements)
        if part.settings.families and factor.metric is not None and method != "matrix_free":
            factor = replace(factor, before_metric=replace(rows, rows=[], factors=[]))
        row_eps = _row_eps(part, jacobian.output)
        subspace = _subspace(part, head, factor, rows, method, row_eps, generator)
        metric, products = part.settings.input_metric, jacobian.products
        directions = directions_by_products(part, factor, subspace, row_eps)
        pulled = None if part.trial is not None else pull_back(part, head, factor, subspace, rows.shelve)
        jacobian.release()
        if plan.frugal:
            return_freed_memory()  # of the passes, before the eigenproblem takes its own
        record = compose_record(part.asked, metric, head, part.image, subspace, products, reason)
        record["computation"] |= {"convolutions": kernels.described()}  # other kernels give other last digits
        record["coordinates"] = None if pulled is None else pulled.record()
        record["volumes"] = described_volumes(head, jacobian.output)
        record["output"] = part.predictor.selection.chosen  # path of the logits, None where the network returns one tensor
        values = root.values if part.trial is None else None  # their gradients need all columns
        d = assemble(head, part.image, jacobian.output, subspace, part.settings, row_eps, record, values)
        d = d if pulled is None else replace(d, coordinates=pulled.coordinates)
        d = _with_locality(part, plan, head, d, jacobian.output) if part.settings.locality else d
        expectations, output = expectations_of(part, plan, d, rows, directions), jacobian.output
    del factor, root, jacobian, subspace, rows  # their memory
    verify_part(part, plan, head, output, row_eps, expectations)
    return d


def _with_locality(part: BatchPart, plan: MemoryPlan, head: Head, d: Decomposition, output: Tensor) -> Decomposition:
    """The decomposition with its locality radius; within a budget no pass holds more images than the part."""
    largest = part.image.shape[0] if plan.frugal else LARGEST_PASS
    found = radii(part.predictor, head, part.image, d.eigenimages, d.eigenvalues, largest, output)
    coarse = coarse_search(head, part.image) is not None
    return replace(d, locality_radius=found, record=d.record | {"locality_is_lower_bound": coarse})


def _saved_activations(part: BatchPart, plan: MemoryPlan, offload: Offload) -> AbstractContextManager[None]:
    """The context of the forward pass whose graph is kept; it offloads activations where the plan limits them."""
    if plan.activations is None:
        return nullcontext()
    return SavedActivations(offload, plan.activations, storages_of(part.predictor.running, part.image)).hooks()


@contextmanager
def _metered(part: BatchPart, plan: MemoryPlan) -> Iterator[Callable[[], int]]:
    """Yields a function that returns the bytes left of the budget after the passes inside, or raises BudgetExceededError."""
    budget = part.settings.budget
    if not plan.tight or budget is None:
        yield lambda: sys.maxsize
        return
    with LiveMemory() as live:

        def check() -> int:
            if live.peak + plan.basis > budget:
                raise BudgetExceededError(live.peak + plan.basis, plan.basis)
            return int(budget - live.peak - plan.basis)

        yield check


def _subspace(
    part: BatchPart, head: Head, factor: Factor, rows: FactorRows, method: Method, row_eps: float, generator: torch.Generator
) -> Subspace:
    """Result of the method; without rows if the output is constant. Raises NetworkError for a network without gradients."""
    if not factor.jacobian.differentiable:
        return _flat(part, factor, rows)
    if part.trial is not None:
        subspace = part.trial(head, factor, rows, part.settings, method, generator)
    elif method == "matrix_free":
        subspace = leading_pairs(factor, rows, part.settings, row_eps, generator, part.watch)
    elif method == "adaptive":
        subspace = adaptive_columns(factor, rows, part.settings, row_eps, generator)
    else:
        subspace = whole_factor(factor, rows)
    if not factor.jacobian.reached:
        return _flat(part, factor, FactorRows(part.image))
    if not rows.finite() or (subspace.remainder is not None and not all_finite(subspace.remainder.diagonal)):
        raise NetworkError(
            "a vector-Jacobian product is NaN or infinite though image and output are finite: look for 0/0, sqrt(0) or "
            "log(0) in the network's backward pass, or use a wider dtype."
        )
    return subspace


def _flat(part: BatchPart, factor: Factor, rows: FactorRows) -> Subspace:
    """Result without rows for a constant output; raises NetworkError if the output is not constant: its gradient was cut."""
    image, output = part.image, factor.jacobian.output
    with torch.no_grad():
        others = [torch.zeros_like(image), 1 - 2 * image, image.flip(-1) + image.mean()]
        constant = all(torch.equal(part.forward(other), output) for other in others)
    if not constant:
        raise NetworkError(
            "no gradient flows from the network's output to its image: ONNX and TensorRT engines, numpy code, .detach(), "
            "torch.no_grad or inference_mode inside forward() and dynamic quantisation cut it. Pass the differentiable PyTorch "
            "module or TorchScript."
        )
    nothing = torch.zeros_like(factor.root.scales[:, 0])
    return Subspace("exact", rows, factor.root.score[:, :0], nothing, nothing)


def _checked_head(part: BatchPart, jacobian: Jacobian) -> Head:
    """The head for the output; raises IFIMError for an output that is not finite, depends on the batch, or does not fit it."""
    output = jacobian.output
    if not bool(torch.isfinite(output).all()):
        raise NetworkError(
            "the network's output is NaN or infinite for this image: check its weights and the scaling of the image, or use "
            "a wider dtype; classes masked with -inf are left out of the output or masked with a large finite number."
        )
    with part.passes():
        check_independence(part.predictor, part.image, output)
    network = part.predictor.running
    operation = last_operation(jacobian.graph, getattr(network, "ends_in", network))
    return asked_head(part.settings, part.facts, output, operation)


def _row_eps(part: BatchPart, output: Tensor) -> float:
    """Machine epsilon of the coarsest dtype that the passes ran in."""
    return coarsest_eps(part.settings.precision, part.image.device, part.image.dtype, output.dtype)


def _trimming(advance: Callable[[int, int | None], None]) -> Callable[[int, int | None], None]:
    """`advance` that also returns freed memory to the system after each product."""

    def trimmed(done: int, expected: int | None) -> None:
        return_freed_memory()
        advance(done, expected)

    return trimmed


def _advance(progress: bool | Progress) -> Progress:
    if callable(progress):
        return progress
    return _print_progress if progress else _no_progress


def _watch(progress: bool | Progress) -> Watch:
    return Watch(report=_print_state) if progress is True else Watch()


def _print_state(state: IterationState) -> None:
    sys.stderr.write(f"\rJacobian products: {state.products}; {state}    ")
    sys.stderr.flush()


def _no_progress(done: int, expected: int | None) -> None:
    return None


def _print_progress(done: int, expected: int | None) -> None:
    sys.stderr.write(f"\rJacobian products: {done}" + (f"/{expected}" if expected else ""))
    sys.stderr.flush()
