"""The torchrun engine: every rank decomposes its share of the cases, and the first writes one table."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
import torch.distributed as dist
from monai.config import PathLike
from torch.distributed.rendezvous import rendezvous

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.inferer import IFIMInferer
from monai_ifim.adapt.settings import CaseSettings, FileShortcuts
from monai_ifim.core import IFIMError
from monai_ifim.io import OpenedSource
from monai_ifim.io.key_table import KeyTable
from monai_ifim.io.limits import Limits
from monai_ifim.options import FILES
from monai_ifim.run.case_clock import Activity, unheard
from monai_ifim.run.cases import Case, cases_of_entries
from monai_ifim.run.local import Report
from monai_ifim.run.output_folder import output_of_run
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.places import placed, settled
from monai_ifim.run.reading_journal import journal_of
from monai_ifim.run.resume import kept_row
from monai_ifim.run.run_record import Start, write_outcome
from monai_ifim.run.settings import RunSettings, with_head
from monai_ifim.run.stop_request import StopRequest
from monai_ifim.run.table import CaseRow

LOOPBACK = ("lo", "lo0")  # names of the loopback interface on Linux and macOS
SLOWEST_RANK = timedelta(days=30)  # how long a finished rank waits; torchrun notices one that died

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rank:
    """A process started by torchrun. number: from 0; local: its number on this machine; size: number of all ranks."""

    number: int = 0
    local: int = 0
    size: int = 1

    @property
    def device(self) -> str:
        """The accelerator of this rank, assigned in turn, or the CPU."""
        count = torch.cuda.device_count()
        return f"cuda:{self.local % count}" if count else "cpu"

    def share(self, cases: int) -> int:
        """Number of `cases` that this rank decomposes."""
        return len(range(self.number, cases, self.size))


def rank_of_process(environment: Mapping[str, str] | None = None) -> Rank:
    """The rank of this process by torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE); a single one without them."""
    found = os.environ if environment is None else environment
    return Rank(int(found.get("RANK", 0)), int(found.get("LOCAL_RANK", 0)), int(found.get("WORLD_SIZE", 1)))


def run_shard(
    bundle: Bundle,
    cases: Sequence[Case],
    settings: RunSettings,
    report: Report,
    rank: Rank,
    stop_request: StopRequest | None = None,
    activity: Activity = unheard,
) -> list[CaseRow]:
    """Decompose this rank's share and return the rows of all ranks; the first rank writes cases.csv and run.json.

    Cases that an earlier run finished are kept, and the others are distributed evenly, so that after the loss of a rank the next
    run continues where all stopped. report is called with the rows of this rank as they are finished, activity as in `run_cases`.
    All ranks are called with the same cases and settings, and OUT is one folder for all. Once stop_request is due,
    the cases that this rank has not started have no row. Raises StoppedError as `decompose_cases` and does not wait then.
    """
    began, settings = Start(), with_head(settings, bundle.head)
    with _process_group(rank) as group, output_of_run(settings, cases) if rank.number == 0 else nullcontext():
        _gather("ready", group)
        cases = placed(cases, settings)  # by all ranks before one writes: the next exchange waits for all
        mine = cases[rank.number :: rank.size]
        kept = _merged(_gather(_kept(bundle, mine, settings), group))
        left = [case for case in cases if case.name not in kept]
        rows = [kept[case.name] for case in mine if case.name in kept]
        for row in rows:
            report(row)
        share, again = left[rank.number :: rank.size], replace(settings, overwrite=True)
        for row in decompose_cases(bundle, share, again, stop_request, journal_of(bundle, settings), activity):
            rows.append(row)
            report(row)
        gathered = [row for part in _gather(rows, group) for row in part]
        if rank.number == 0:
            engine = {"name": "torchrun", "ranks": rank.size}
            return write_outcome(bundle.identity, settings, cases, gathered, began, engine, rank.size)
        by_name = {row.key: row for row in gathered}
        return [by_name[case.name] for case in cases if case.name in by_name]


class ShardedRun:
    """The run of a bundle's inference config over several ranks, as configs/multi_gpu.yaml calls it.

    Network, weights and preprocessing are those of the bundle's files.

    Args:
        bundle_root: the bundle.
        datalist: MONAI data dictionaries; the image's path is under `image_key`, and what the preprocessing needs beside it.
        output_dir: OUT, one folder for all ranks.
        inferer: the config's IFIMInferer, whose settings hold here too.
        batch_size: as `RunSettings`.
        limits: as `Limits`: voxels, bytes, seconds, 0 for none.
        conclude: called with OUT by the first rank after all tables are written, for example to write a page.
        shortcuts: space, contents, dicom_pm, scene_bundle of `CaseSettings`.
    """

    def __init__(
        self,
        bundle_root: PathLike,
        datalist: Sequence[Mapping[str, Any]],
        output_dir: PathLike,
        inferer: IFIMInferer,
        batch_size: int = 1,
        image_key: str = "image",
        conclude: Callable[[Path], Any] | None = None,
        limits: Mapping[str, int] | None = None,
        **shortcuts: Unpack[FileShortcuts],
    ) -> None:
        self.conclude = conclude
        self.rank = rank_of_process()
        self.root = Path(bundle_root)
        self.cases = cases_of_entries(datalist, image_key)
        case = CaseSettings.of(inferer.settings, shortcuts, FILES)
        wanted = Limits(**(limits or {}))
        self.settings = RunSettings(Path(output_dir), case, batch_size, self.rank.device, limits=wanted)

    def __call__(self) -> None:
        """Decompose the cases; raises IFIMError on the first rank, after all is written, if cases failed, for the exit status."""
        bundle = load_bundle(self.root, self.settings.device)
        rows = run_shard(bundle, self.cases, self.settings, _log_failure, self.rank)
        if self.rank.number != 0:
            return
        if self.conclude is not None:
            self.conclude(self.settings.output)
        failed = sum(row.status == "failed" for row in rows)
        if failed:
            raise IFIMError(f"{failed} of {len(rows)} cases failed: see the reasons in cases.csv in {self.settings.output}.")


def _kept(bundle: Bundle, cases: Sequence[Case], settings: RunSettings) -> dict[str, CaseRow]:
    """The rows of cases that an earlier run finished, by their names in the list; those that cannot be read fail later."""
    table = KeyTable.beside(settings.output) if settings.case.case_names == "hash" else None
    found = {}
    for listed in (each for each in cases if not each.refusal):
        case = listed.of_entries(bundle.steps.keys.wanted)
        opened = OpenedSource(case.source)
        with suppress(Exception):  # readers raise anything
            case = settled(case, settings.output, opened, table)
            row = kept_row(bundle.identity, case, settings, opened)
            if row is not None:
                found[case.listed] = row.of_listed(case.listed, case.given)
    return found


def _merged(parts: Sequence[Mapping[str, CaseRow]]) -> dict[str, CaseRow]:
    return {name: row for part in parts for name, row in part.items()}


def _log_failure(row: CaseRow) -> None:
    if row.status == "failed":
        logging.getLogger("monai_ifim").error("case %s: %s", row.case, row.reason)


@contextmanager
def _process_group(rank: Rank) -> Iterator[dist.ProcessGroup | None]:
    """A process group that exchanges Python objects between the ranks, which an NCCL group of a config cannot."""
    if rank.size == 1:
        yield None
        return
    _prefer_loopback(rank)
    ours = not dist.is_initialized()
    if ours:
        store, number, size = _store(rank)
        # torchrun's store survives a restart and holds addresses of ranks that are gone
        fresh = dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", timeout=SLOWEST_RANK, store=fresh, rank=number, world_size=size)
        yield dist.group.WORLD
        dist.destroy_process_group()  # not after an error: the other ranks would not take part
        return
    group = dist.new_group(backend="gloo", timeout=SLOWEST_RANK)
    yield group
    dist.destroy_process_group(group)


def _on_one_machine(rank: Rank) -> bool:
    return os.environ.get("LOCAL_WORLD_SIZE") == str(rank.size)


def _prefer_loopback(rank: Rank) -> None:
    """Let the ranks of one machine exchange their rows over the loopback interface, unless the user names another.

    By default gloo listens at the address of the machine's name.
    """
    if _on_one_machine(rank):
        names = [name for _, name in socket.if_nameindex() if name in LOOPBACK]
        os.environ.setdefault("GLOO_SOCKET_IFNAME", (names or ["lo"])[0])


def _store(rank: Rank) -> tuple[Any, int, int]:
    """The store by which the ranks find each other, this rank's number and their count.

    It is torchrun's. Where torchrun offers none (docs/many_cases.md), the first rank serves it, and on one machine on loopback
    only: PyTorch's own listens at every address.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared or rank.number or not _on_one_machine(rank):
        return next(rendezvous("env://", timeout=SLOWEST_RANK))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = socket.create_server((address, port))
    descriptor = listening.detach()  # the store closes it
    options: dict[str, Any] = {
        "is_master": True,
        "timeout": SLOWEST_RANK,
        "wait_for_workers": False,
        "master_listen_fd": descriptor,
    }
    store = dist.TCPStore(address, port, rank.size, **options)  # type: ignore[attr-defined]
    return store, rank.number, rank.size


def _gather(value: Value, group: dist.ProcessGroup | None) -> list[Value]:
    """The values of all ranks, in their order."""
    if group is None:
        return [value]
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values
