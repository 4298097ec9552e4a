"""The pipeline of a run: reading, computing and writing of consecutive cases overlap."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_ifim.adapt.answer_facts import facts_of_images, voxel_volume
from monai_ifim.adapt.bundle import Bundle
from monai_ifim.adapt.components import component_tensors, item_of_batch, record_of_image
from monai_ifim.adapt.image_places import with_places
from monai_ifim.adapt.saving import SaveIFIM
from monai_ifim.adapt.scanner.space import ScannerSpace
from monai_ifim.adapt.tied_channels import Tie, tied_network
from monai_ifim.core import Decomposition, IFIMError
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.determinism import deterministic_algorithms, refused_operation
from monai_ifim.core.memory.scratch import ScratchFolder
from monai_ifim.io import InputError, ModelIdentity, OpenedSource
from monai_ifim.io.containment import check_real
from monai_ifim.io.errors import explained, single_line
from monai_ifim.io.hidden_names import without_names
from monai_ifim.io.key_table import KeyTable
from monai_ifim.io.limits import Limits
from monai_ifim.io.parametric_map.source import ReferencedSeries
from monai_ifim.io.scan import Scan
from monai_ifim.io.source import there
from monai_ifim.options import on_command_line
from monai_ifim.run.case_clock import Activity, CaseClock, unheard
from monai_ifim.run.cases import Case
from monai_ifim.run.file_thread import FileThread
from monai_ifim.run.places import settled
from monai_ifim.run.reading import read_image
from monai_ifim.run.reading_journal import ReadingJournal
from monai_ifim.run.resume import kept_row
from monai_ifim.run.settings import RunSettings, with_head
from monai_ifim.run.stage_seconds import StageSeconds
from monai_ifim.run.stop_request import StoppedError, StopRequest, short_of_memory
from monai_ifim.run.table import CaseRow, row_from_sidecar

READ_AHEAD = 2  # images read in advance of the batch being computed
WRITE_BEHIND = 2  # computed cases that wait to be written

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Loaded:
    """A case with its opened input and its image [channel, *spatial], ready for the network.

    scan, series, tie: as `ReadImage`; spent: on reading.
    """

    case: Case
    opened: OpenedSource
    image: MetaTensor
    scan: Scan | None
    series: ReferencedSeries | None
    tie: Tie | str | None
    spent: StageSeconds


@dataclass(frozen=True)
class _Computed:
    """The components of a case on the network's grid, and the seconds spent on reading and computing."""

    loaded: _Loaded
    components: dict[str, torch.Tensor]
    spent: StageSeconds


def decompose_cases(
    bundle: Bundle,
    cases: Iterable[Case],
    settings: RunSettings,
    stop_request: StopRequest | None = None,
    journal: ReadingJournal | None = None,
    activity: Activity = unheard,
) -> Iterator[CaseRow]:
    """Yield one row per case, in any order, after its files are written.

    A case that fails gives a row too. Reading and writing run in one thread each, computing in the caller's.
    activity: is told how far a long computation is. journal: cases at which an earlier run died come last, and are read in a
    process of their own first. stop_request: once it is due, cases being computed and written are finished and no other is
    started. Raises StoppedError, after the last row, if no other case could be done: the device is lost, or the disk cannot be
    written to.
    """
    stop_request, settings = stop_request or StopRequest(), with_head(settings, bundle.head)
    cases = (case.of_entries(bundle.steps.keys.wanted) for case in cases)
    cases = cases if journal is None else journal.suspects_last(cases)
    with deterministic_algorithms(settings.case.deterministic, settings.device), ScratchFolder() as scratch:
        preprocessing, writers = _preprocessing_to_invert(bundle)
        writer = SaveIFIM(
            settings.output,
            settings.case,
            preprocessing=preprocessing,
            image_key=bundle.image_key,
            model=bundle.identity,  # as it was loaded, whatever lies in its folder now
        )
        reading, *further = (FileThread() for _ in range(1 + writers))
        writing = further[0] if further else reading
        try:
            load = partial(
                _load,
                bundle,
                settings=settings,
                scratch=scratch,
                stop_request=stop_request,
                journal=journal,
                table=writer.key_table,
            )
            loaded = _ahead(reading, load, cases, settings.limits)
            results = _compute(bundle, _until(stop_request, loaded), settings, stop_request, activity)
            yield from _behind(writing, lambda computed: _save(writer, computed, settings, stop_request), results)
        finally:  # also if the caller stops early: the case being written is finished, waiting ones are dropped
            for thread in {reading, writing}:
                thread.close()
    if stop_request.cause:
        raise StoppedError(stop_request.cause)


def _preprocessing_to_invert(bundle: Bundle) -> tuple[Compose, int]:
    """The preprocessing for the writer, and the number of writer threads, 0 for the reader's thread.

    MONAI's inverse disables the tracing of transforms while it runs, so that an image read at that moment could not be inverted
    later. The writer therefore uses a copy, or, if the preprocessing cannot be copied, runs in the reader's thread.
    """
    try:
        return deepcopy(bundle.preprocessing), 1
    except Exception:
        return bundle.preprocessing, 0


def _ahead(
    thread: FileThread, load: Callable[[Case], _Loaded | CaseRow], cases: Iterable[Case], limits: Limits
) -> Iterator[_Loaded | CaseRow]:
    """What the cases load to, in their order, up to READ_AHEAD of them in advance; one that takes too long fails."""
    pending: deque[tuple[Case, Future[_Loaded | CaseRow]]] = deque()

    def first() -> _Loaded | CaseRow:
        case, future = pending.popleft()
        return thread.result(future, limits.seconds) or failed_row(case, limits.too_slow(f"{case.source.path.name}: reading it"))

    for case in cases:
        pending.append((case, thread.submit(partial(load, case))))
        if len(pending) > READ_AHEAD:
            yield first()
    while pending:
        yield first()


def _behind(
    thread: FileThread, task: Callable[[_Computed], CaseRow], results: Iterator[_Computed | CaseRow]
) -> Iterator[CaseRow]:
    """Rows; computed cases are written by the thread, and at most WRITE_BEHIND of them wait."""
    pending: deque[Future[CaseRow]] = deque()
    for result in results:
        if isinstance(result, CaseRow):
            yield result
            continue
        pending.append(thread.submit(partial(task, result)))
        while len(pending) > WRITE_BEHIND or (pending and pending[0].done()):
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _until(stop_request: StopRequest, items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if stop_request.due:
            return
        yield item


def _load(
    bundle: Bundle,
    case: Case,
    settings: RunSettings,
    scratch: Path,
    stop_request: StopRequest,
    journal: ReadingJournal | None,
    table: KeyTable | None,
) -> _Loaded | CaseRow:
    """The image for the network, or the row of a case that is kept or cannot be read."""
    started = time.perf_counter()
    try:
        if case.refusal:
            raise InputError(case.refusal)
        opened = OpenedSource(case.source)
        case = settled(case, settings.output, opened, table)
        check_real(settings.output / case.name)
        kept = kept_row(bundle.identity, case, settings, opened)
        if kept is not None:
            if journal is not None:
                journal.forget(case)
            checked = StageSeconds(reading=time.perf_counter() - started)
            return replace(kept.of_listed(case.listed, case.given), stages=checked)
        if there(case.source.path):
            opened.take_hashes()  # of the bytes that are read from here on
        if journal is not None:
            journal.begin(case)
        read = read_image(bundle, opened, settings, scratch)
        opened.refuse_changed()
    except BaseException as error:  # readers raise anything; the failure is recorded and the run continues
        stop_request.read_failed(error)
        return failed_row(case, short_of_memory(error, "cpu") or error)
    finally:
        if journal is not None:
            journal.end(case)
    spent = StageSeconds(reading=time.perf_counter() - started)
    return _Loaded(case, opened, read.image, read.scan, read.series, read.tie, spent)


def _compute(
    bundle: Bundle, loaded: Iterator[_Loaded | CaseRow], settings: RunSettings, stop_request: StopRequest, activity: Activity
) -> Iterator[_Computed | CaseRow]:
    """Components of the loaded cases; up to batch_size consecutive images of one shape share passes."""
    if settings.case.space == "scanner":
        yield from _decompose_scans(bundle, loaded, settings, stop_request, activity)
        return
    group: list[_Loaded] = []
    for item in loaded:
        if isinstance(item, CaseRow):
            yield item
            continue
        if group and not _share_passes(group[0].image, item.image):
            yield from _decompose_group(bundle, group, settings, stop_request, activity)
            group = []
        group.append(item)
        if len(group) == settings.batch_size:
            yield from _decompose_group(bundle, group, settings, stop_request, activity)
            group = []
    if group:
        yield from _decompose_group(bundle, group, settings, stop_request, activity)


def _share_passes(first: MetaTensor, other: MetaTensor) -> bool:
    """True for images of one shape whose voxels have a known volume, or neither has one."""
    return first.shape == other.shape and (voxel_volume(first) is None) == (voxel_volume(other) is None)


def _decompose_scans(
    bundle: Bundle, loaded: Iterator[_Loaded | CaseRow], settings: RunSettings, stop_request: StopRequest, activity: Activity
) -> Iterator[_Computed | CaseRow]:
    """Components of scans, one by one, because each has its own geometry."""
    scanner = ScannerSpace(
        bundle.preprocessing,
        settings.case.statistics,
        settings.case.resolution,
        bundle.image_key,
        planar=bundle.spatial_dims == 2,
    )
    for item in loaded:
        if isinstance(item, CaseRow):
            yield item
            continue
        started = time.perf_counter()
        try:
            scan = item.image.to(settings.device)
            clock, names = _clock(settings, [item], activity), bundle.identity.class_names
            following: Any = {"name": item.case.name, "progress": clock.count, "watch": clock.watch, "class_names": names}
            following["modality"] = item.opened.modality if settings.case.families else ""
            decomposition = scanner.decompose(bundle.network, scan, settings.case, **following)
            clock.silence()
            seconds = time.perf_counter() - started
            tensors = component_tensors(_recorded(decomposition, bundle, settings), scan[None], seconds)
        except (Exception, SystemExit) as error:
            lost = stop_request.compute_failed(item.case.name, error, settings.device)
            yield _failed_computing(item.case, lost or _unfit(bundle, item) or error, settings, bundle)
            continue
        spent = replace(item.spent, computing=time.perf_counter() - started)
        yield _Computed(item, item_of_batch(tensors, 0, item.image), spent)


def _unfit(bundle: Bundle, item: _Loaded) -> InputError | None:
    """The error if the preprocessed scan does not fit the network, else None."""
    try:
        bundle.prepare({bundle.file_key: item.image.clone()}, item.case.source.path)
    except InputError as error:
        return error
    return None


def _decompose_group(
    bundle: Bundle, group: Sequence[_Loaded], settings: RunSettings, stop_request: StopRequest, activity: Activity
) -> Iterator[_Computed | CaseRow]:
    """Components of a batch. If it fails, its images are tried one by one, so that only the culprit fails."""
    if stop_request.due:
        return
    started = time.perf_counter()
    try:
        batch = torch.stack([loaded.image.as_subclass(torch.Tensor) for loaded in group]).to(settings.device)
        clock = _clock(settings, group, activity)
        ties, class_names = [loaded.tie for loaded in group], bundle.identity.class_names
        facts = facts_of_images([loaded.image for loaded in group], class_names, settings.case.region, bundle.preprocessing)
        facts = with_places(facts, settings.case, [loaded.image for loaded in group], bundle.preprocessing)
        network, further = tied_network(bundle.network, ties, settings.device)
        names = [loaded.case.name for loaded in group]
        following: Any = {"names": names, "progress": clock.count, "watch": clock.watch, "facts": facts}
        decomposition = decompose_with(settings.case, network, batch, further, **following)
        clock.silence()
        tensors = component_tensors(_recorded(decomposition, bundle, settings), batch, time.perf_counter() - started, ties)
    except (Exception, SystemExit) as error:
        lost = stop_request.compute_failed(group[0].case.name, error, settings.device)
        if lost is not None or len(group) == 1:
            for loaded in group:
                yield _failed_computing(loaded.case, lost or error, settings, bundle)
            return
        tensors = None
    if tensors is None:  # outside of the handler, whose error keeps the batch's memory alive
        for loaded in group:
            yield from _decompose_group(bundle, [loaded], settings, stop_request, activity)
        return
    share = (time.perf_counter() - started) / len(group)
    for index, loaded in enumerate(group):
        yield _Computed(loaded, item_of_batch(tensors, index, loaded.image), replace(loaded.spent, computing=share))


def _clock(settings: RunSettings, group: Sequence[_Loaded], activity: Activity) -> CaseClock:
    cases = [loaded.case for loaded in group]
    return CaseClock(settings.limits, [case.name if case.hidden else case.source.path.name for case in cases], activity)


def _recorded(decomposition: Decomposition, bundle: Bundle, settings: RunSettings) -> Decomposition:
    """The decomposition; its record says which random steps of the preprocessing were left out, and where its head comes from."""
    more = {"left_out": list(bundle.steps.left_out), "head_source": settings.head_source}
    return replace(decomposition, record=decomposition.record | more)


def _save(writer: SaveIFIM, computed: _Computed, settings: RunSettings, stop_request: StopRequest) -> CaseRow:
    case, started = computed.loaded.case, time.perf_counter()
    try:
        _check_class_names(writer.model, len(record_of_image(computed.components)["probabilities"]))
        loaded = computed.loaded
        written = writer.write(loaded.image, computed.components, loaded.opened, case.name, loaded.scan, loaded.series)
        stop_request.case_written()
        spent = replace(computed.spent, writing=time.perf_counter() - started)
        row = row_from_sidecar(written.path.parent.name, "done", written.sidecar, spent.total)
        return replace(row.of_listed(case.listed, case.given), stages=spent)
    except BaseException as error:  # the inverse of a bundle's preprocessing raises anything
        stop_request.write_failed(error)
        lost = stop_request.compute_failed(case.name, error, settings.device)  # a GPU may report an error only now
        return failed_row(case, lost or error)


def _check_class_names(model: ModelIdentity, outputs: int) -> None:
    """Raise InputError if class names and outputs differ in number; one binary output may have two names."""
    names = len(model.class_names)
    if names not in (0, outputs) and (names, outputs) != (2, 1):
        raise InputError(
            f"bundle {model.name}: {names} class names for {outputs} output{'' if outputs == 1 else 's'}: correct channel_def in "
            "its configs/metadata.json."
        )


def _failed_computing(case: Case, error: BaseException, settings: RunSettings, bundle: Bundle) -> CaseRow:
    """The row of a case that failed while computing: an error of the user's network is not reported as a bug."""
    error = short_of_memory(error, settings.device) or error
    if isinstance(error, (IFIMError, MemoryError)):
        return failed_row(case, error)
    said = f"{type(error).__name__}: {single_line(str(error))}"
    axis = "" if bundle.steps.channel_first else " Its preprocessing has no EnsureChannelFirst(d), which puts the channels first."
    refused = IFIMError(f"the network fails on this image ({said}): run `monai-ifim check` on the bundle.{axis}")
    refused.__cause__ = error
    return failed_row(case, refused)


def failed_row(case: Case, error: BaseException) -> CaseRow:
    """The row of a failed case with the reason in one line, in the words of the command line; the traceback goes to the log."""
    log = logging.getLogger("monai_ifim")
    if case.hidden:
        log.debug("case %s: where the error arose:\n%s", case.name, "".join(traceback.format_tb(error.__traceback__)))
    else:
        log.debug("case %s: where the error arose:", case.name, exc_info=error)
    if not isinstance(error, Exception):
        said = single_line(str(error))
        error = InputError(f"the bundle's preprocessing exits the program ({type(error).__name__}: {said}): correct it.")
    reason, name = on_command_line(explained(refused_operation(error) or error)), case.source.path.name
    if case.hidden:
        reason, name = without_names(reason, case.source, case.name), ""
    return CaseRow(case.name, "failed", reason, name).of_listed(case.listed or case.name, case.given)
