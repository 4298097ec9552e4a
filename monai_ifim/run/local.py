"""The local engine: decompose a list of cases one after the other in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.adapt.components import component_tensors, item_of_batch
from monai_ifim.adapt.options import DecomposeOptions
from monai_ifim.adapt.saving import SaveIFIM, Space, check_space
from monai_ifim.core import IFIMError
from monai_ifim.core.decompose import head_name, selection
from monai_ifim.io import CONTENTS, OutputError, check_contents, read_sidecar, sidecar_path
from monai_ifim.io.sidecar import versions
from monai_ifim.io.source import check_source, extract_frame, sha256_of
from monai_ifim.run.cases import Case
from monai_ifim.run.table import CaseRow, row_from_sidecar, write_run, write_table


@dataclass(frozen=True)
class RunSettings:
    """How to run: options of the decomposition, what to write and where. batch_size: images that share backward passes."""

    output: Path
    options: DecomposeOptions
    space: Space = "native"
    contents: tuple[str, ...] = CONTENTS
    batch_size: int = 1
    device: str = "cpu"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_contents(self.contents)
        check_space(self.space)
        check_device(self.device)
        if self.batch_size < 1:
            raise IFIMError(f"batch size {self.batch_size}: give a whole number from 1 on.")


def check_device(device: str) -> None:
    """Raise IFIMError where nothing can be computed on `device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise IFIMError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}): try 'cpu' or 'cuda'.") from error


@dataclass(frozen=True)
class _Loaded:
    """A case whose image [channel, *spatial] is ready for the network."""

    case: Case
    image: MetaTensor
    started: float


Report = Callable[[CaseRow], None]


def run_cases(bundle: Bundle, cases: Sequence[Case], settings: RunSettings, report: Report) -> list[CaseRow]:
    """Decompose every case, write its files, then cases.csv and run.json; a case that fails is a row, not the end.

    report is called with each row as it comes. Raises OutputError where OUT cannot be written at all.
    """
    began = time.time()
    made_folder(settings.output)
    writer = SaveIFIM(
        settings.output,
        settings.space,
        bundle.preprocessing,
        settings.contents,
        bundle.identity.class_names,
        bundle.root,
        bundle.image_key,
    )
    rows: dict[str, CaseRow] = {}

    def finish(row: CaseRow) -> None:
        rows[row.case] = row
        report(row)

    for group in _groups(bundle, cases, settings, finish):
        for row in _decompose_group(bundle, group, settings, writer):
            finish(row)
    ordered = [rows[case.name] for case in cases]
    write_table(settings.output, ordered)
    write_run(settings.output, _describe(bundle, settings, ordered, began))
    return ordered


def made_folder(output: Path) -> Path:
    """The folder for results, made where missing; raises OutputError where it cannot be."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made ({error.strerror}): choose another --output.") from error
    return output


def _groups(
    bundle: Bundle, cases: Sequence[Case], settings: RunSettings, finish: Callable[[CaseRow], None]
) -> Iterator[list[_Loaded]]:
    """Loaded cases of one shape, at most batch_size together; cases that fail or are whole already end here."""
    group: list[_Loaded] = []
    with tempfile.TemporaryDirectory(prefix="monai_ifim-") as scratch:
        for case in cases:
            sidecar = sidecar_path(settings.output, case.name)
            kept = None if settings.overwrite else _whole(bundle, case, settings, sidecar)
            if kept is not None:
                finish(kept)
                continue
            started = time.perf_counter()
            try:
                image = _load(bundle, case, Path(scratch))
            except Exception as error:  # one case's failure is recorded and the others go on
                finish(_failure(case, error))
                continue
            if group and (group[0].image.shape != image.shape or len(group) == settings.batch_size):
                yield group
                group = []
            group.append(_Loaded(case, image, started))
            if len(group) == settings.batch_size:
                yield group
                group = []
        if group:
            yield group


def _whole(bundle: Bundle, case: Case, settings: RunSettings, sidecar: Path) -> CaseRow | None:
    """The row of a case that an earlier run finished; None where there is none, or where its sidecar is damaged or tells
    of another input, other weights or other settings: what lies there then is not what was asked for."""
    try:
        content = read_sidecar(sidecar) if sidecar.is_file() else None
        if content is None or not _answers(content, bundle, case, settings):
            return None
        return row_from_sidecar(case.name, "kept", content)
    except (IFIMError, OSError, KeyError, TypeError):
        return None


def _answers(content: Mapping[str, Any], bundle: Bundle, case: Case, settings: RunSettings) -> bool:
    """Whether a sidecar is that of this input, these weights and these settings."""
    options = settings.options
    saved = {file["content"].split(",")[0].split(" ")[0] for file in content["files"]}
    wanted = {"input", *(name.removesuffix("s") for name in settings.contents)}
    return (
        content["input"]["sha256"] == sha256_of(case.source.path)
        and content["input"]["frame"] == case.source.frame
        and content["model"]["weights_sha256"] == bundle.identity.weights_sha256
        and content["model"]["version"] == bundle.identity.version
        and content["space"]["name"] == settings.space
        and content["selection"] == selection(options.energy, options.rank)
        and content["head_requested"] == head_name(options.head)
        and (content["rank"] == 0 or saved == wanted)
        and all((settings.output / case.name / file["file"]).is_file() for file in content["files"])
    )


def _load(bundle: Bundle, case: Case, scratch: Path) -> MetaTensor:
    check_source(case.source, bundle.channels)
    return bundle.preprocess(extract_frame(case.source, scratch))


def _decompose_group(bundle: Bundle, group: list[_Loaded], settings: RunSettings, writer: SaveIFIM) -> Iterator[CaseRow]:
    """Rows of a group; where the batch fails, its images are tried one by one, so that only the guilty one is lost."""
    started = time.perf_counter()
    try:
        batch = torch.stack([loaded.image.as_subclass(torch.Tensor) for loaded in group]).to(settings.device)
        decomposition = settings.options.decompose(bundle.network, batch)
        tensors = component_tensors(decomposition, batch, settings.options.locality, time.perf_counter() - started)
    except Exception as error:
        if len(group) == 1:
            yield _failure(group[0].case, error)
            return
        for loaded in group:
            yield from _decompose_group(bundle, [loaded], settings, writer)
        return
    for index, loaded in enumerate(group):
        yield _save(item_of_batch(tensors, index, loaded.image), loaded, writer)


def _save(components: dict[str, torch.Tensor], loaded: _Loaded, writer: SaveIFIM) -> CaseRow:
    case = loaded.case
    try:
        sidecar = writer(loaded.image, components, case.source, case.name)
    except Exception as error:
        return _failure(case, error)
    return row_from_sidecar(case.name, "done", read_sidecar(sidecar), time.perf_counter() - loaded.started)


def _failure(case: Case, error: Exception) -> CaseRow:
    text = " ".join(str(error).split()) or type(error).__name__
    known = isinstance(error, IFIMError)
    return CaseRow(case.name, "failed", text if known else f"{type(error).__name__}: {text}", case.source.path.name)


def _describe(bundle: Bundle, settings: RunSettings, rows: list[CaseRow], began: float) -> dict[str, Any]:
    counts = {status: sum(row.status == status for row in rows) for status in ("done", "kept", "failed")}
    return {
        "bundle": asdict(bundle.identity),
        "options": {name: str(value) if name == "head" else value for name, value in asdict(settings.options).items()},
        "space": settings.space,
        "saved": list(settings.contents),
        "batch_size": settings.batch_size,
        "device": settings.device,
        "cases": counts,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": time.time() - began,
        "versions": versions(),
    }
