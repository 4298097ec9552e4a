"""What breaks while a run goes on: readers, the device, the disk, the clock. Nothing is lost, and the same command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose, Lambdad
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.pipeline import WRITE_BEHIND
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.stop_request import PATIENCE, StoppedError, StopRequest
from monai_ifim.run.table import CaseRow

CASES = 9
OPTIONS = CaseSettings("categorical", rank=2)
YEAR = 365.25 * 86400
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Ground:
    """A bundle, scans, and what an undisturbed run makes of them."""

    bundle: Bundle
    scans: Path
    contents: dict[str, Any]
    contents_of: Callable[[Path], dict[str, Any]]

    def run(
        self, output: Path, bundle: Bundle | None = None, report: Callable[[CaseRow], None] = lambda row: None, **settings: Any
    ) -> list[CaseRow]:
        stop_request = settings.pop("stop_request", None)
        case = CaseSettings.of(settings.pop("options", OPTIONS), {"space": "network"} | settings.pop("case", {}))
        wanted = RunSettings(output, case, **settings)
        return run_cases(bundle or self.bundle, find_cases([self.scans]), wanted, report, stop_request)

    def check_whole(self, output: Path, cases: int | None = None) -> None:
        """Each case that lies there is that of the undisturbed run, and nothing else does."""
        found = self.contents_of(output)
        whole = {name.partition("/")[0] for name in found}
        assert found == {name: content for name, content in self.contents.items() if name.partition("/")[0] in whole}
        assert not list(output.rglob(".partial-*"))
        assert cases is None or len(whole) == cases

    def with_step(self, function: Callable[[Tensor], Tensor]) -> Bundle:
        steps = [*self.bundle.preprocessing.transforms, Lambdad("image", func=function, inv_func=lambda image: image)]
        return replace(self.bundle, steps=replace(self.bundle.steps, compose=Compose(steps)))

    def with_network(self, network: nn.Module) -> Bundle:
        return replace(self.bundle, network=network)


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path], write_scan: Callable[..., Path],
    turned: Callable[..., Any], contents_of: Callable[[Path], Any],
) -> Ground:  # fmt: skip
    folder = tmp_path_factory.mktemp("ground")
    bundle = load_bundle(make_bundle(folder / "bundle"))
    for i in range(CASES):
        affine = turned((1.1, 2.3, 3.1), (0.1 * i, 0.2, -0.3), flip=i % 2 == 0)
        write_scan(folder / "in" / f"s{i}.nii.gz", (9 + i, 8, 11 - i % 3), affine, shift=10.0 * i)
    bare = Ground(bundle, folder / "in", {}, contents_of)
    assert {row.status for row in bare.run(folder / "out")} == {"done"}
    return replace(bare, contents=contents_of(folder / "out"))


def is_fourth(image: Tensor) -> bool:
    """Values of scan i lie about 1.5 + 10 i."""
    return round((float(image.mean()) - 1.5) / 10) == 3


# --- readers


def end_in(error: BaseException) -> Callable[[Tensor], Tensor]:
    def step(image: Tensor) -> Tensor:
        if is_fourth(image):
            raise error
        return image

    return step


def die(_: Any) -> None:
    os._exit(9)


def lose_a_worker(image: Tensor) -> Tensor:
    """A step that reads by a process of its own, as a bundle may."""
    if is_fourth(image):
        list(DataLoader([0], num_workers=1, collate_fn=die))  # type: ignore[arg-type]
    return image


READERS = {
    "exits": (end_in(SystemExit(3)), "the bundle's preprocessing exits the program (SystemExit: 3): correct it."),
    "is interrupted": (end_in(KeyboardInterrupt()), "the bundle's preprocessing exits the program (KeyboardInterrupt: )"),
    "has no memory": (end_in(MemoryError("of 3 GB")), "not enough memory"),
    "stops": (end_in(StopIteration()), "StopIteration"),
    "loses its worker": (lose_a_worker, "DataLoader worker"),
}


@pytest.mark.parametrize(
    ("step", "reason"),
    [pytest.param(*row, id=name, marks=[pytest.mark.slow] * (name == "loses its worker")) for name, row in READERS.items()],
)
def test_reader_that_dies_costs_its_case_alone(
    step: Callable[[Tensor], Tensor], reason: str, ground: Ground, tmp_path: Path
) -> None:
    rows = ground.run(tmp_path / "out", ground.with_step(step))
    assert [row.status for row in rows] == ["failed" if i == 3 else "done" for i in range(CASES)]
    assert reason in rows[3].reason
    assert "\n" not in rows[3].reason
    assert len(list((tmp_path / "out").glob("*/*_ifim.json"))) == CASES - 1


# --- the device


class Failing(nn.Module):
    """Raises `error` for images for which `fails` says so; counts those."""

    def __init__(self, network: nn.Module, error: Exception, fails: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.network, self.error, self.fails, self.failures = network, error, fails, 0
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        if self.fails(image.detach()):
            self.failures += 1
            raise self.error
        out: Tensor = self.network(image)
        return out


ASSERTION = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API call"
LOST = {
    "assertion": torch.AcceleratorError(ASSERTION),
    "fallen off the bus": RuntimeError("CUDA error: unknown error\nCompile with `TORCH_USE_CUDA_DSA`"),
    "memory fault": RuntimeError("HIP error: an illegal memory access was encountered"),
}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("error", LOST.values(), ids=LOST)
def test_device_that_is_lost_ends_the_run_and_the_next_goes_on(
    error: Exception, batch_size: int, ground: Ground, tmp_path: Path
) -> None:
    lost: list[bool] = []
    network = Failing(ground.bundle.network, error, lambda image: bool(lost) or any(map(is_fourth, image)))
    seen: list[CaseRow] = []
    with pytest.raises(StoppedError) as stopped:
        ground.run(tmp_path, ground.with_network(network), seen.append, batch_size=batch_size, options=OPTIONS)
    assert network.failures <= 2  # the last try of a batch is with as little memory as there is a way to
    first = str(error).splitlines()[0]
    assert str(stopped.value).startswith(f"s3: the device cpu is lost ({first}), and no further case can be computed")
    assert f"{3} of {CASES} cases are finished." in str(stopped.value)
    assert [row.case for row in seen if row.status == "done"] == ["s0", "s1", "s2"]
    failed = [row for row in seen if row.status == "failed"]
    assert [row.case for row in failed] == [f"s{i}" for i in range(3, 3 + batch_size)]
    assert all("is lost" in row.reason for row in failed)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["cases"] == {"done": 3, "kept": 0, "failed": batch_size, "left": CASES - 3 - batch_size}
    rows = ground.run(tmp_path)
    assert [row.status for row in rows] == ["kept"] * 3 + ["done"] * (CASES - 3)
    if batch_size == 1:  # sums in another order differ in their last digit
        ground.check_whole(tmp_path, CASES)


def test_device_that_answers_no_more_is_lost_whatever_the_error_says(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Failing(ground.bundle.network, RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), is_fourth)
    rows = ground.run(tmp_path / "answers", ground.with_network(network))
    assert [row.status for row in rows] == ["failed" if i == 3 else "done" for i in range(CASES)]
    monkeypatch.setattr("monai_ifim.run.stop_request._answers", lambda device: False)
    with pytest.raises(StoppedError, match="s3: the device cpu is lost .cuDNN error: CUDNN_STATUS_EXECUTION_FAILED."):
        ground.run(tmp_path / "silent", ground.with_network(network))


@pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.MemoryWarning")
def test_case_that_finds_no_memory_fails_alone_and_names_the_budget(ground: Ground, tmp_path: Path) -> None:
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 78.00 GiB of which 1 is free."
    errors = {
        "Tried to allocate 2.00 GiB": torch.OutOfMemoryError(said),
        "CUDA error: out of memory": torch.AcceleratorError("CUDA error: out of memory"),
        "you tried to allocate 80000 bytes": RuntimeError(
            "[x.cpp] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000 bytes. Error code 12"
        ),
    }
    for told, error in errors.items():
        network = Failing(ground.bundle.network, error, lambda image: any(map(is_fourth, image)))
        rows = ground.run(tmp_path / told[:3], ground.with_network(network), batch_size=3)
        assert [row.status for row in rows] == ["failed" if i == 3 else "done" for i in range(CASES)]
        assert rows[3].reason.startswith(
            f"not enough memory on the device cpu ({told}): bound what is held there with --memory-budget"
        )


def test_network_that_exits_costs_its_case_alone(ground: Ground, tmp_path: Path) -> None:
    class Quitting(Failing):
        def forward(self, image: Tensor) -> Tensor:
            if self.fails(image.detach()):
                raise SystemExit(7)
            out: Tensor = self.network(image)
            return out

    rows = ground.run(tmp_path, ground.with_network(Quitting(ground.bundle.network, RuntimeError(), is_fourth)))
    assert [row.status for row in rows] == ["failed" if i == 3 else "done" for i in range(CASES)]
    assert "the network fails on this image (SystemExit: 7)" in rows[3].reason


# --- the disk


@dataclass(frozen=True)
class SmallDisk:
    """A place that takes `size` bytes, and a file in it that takes most of them."""

    place: Path
    size: int

    def fill(self, left: int) -> None:
        used = held(self.place)
        with (self.place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            file.write(bytes(self.size - used - left))  # or as much of it as there is room for

    def make_room(self) -> None:
        (self.place / "ballast").unlink()


def held(folder: Path) -> int:
    """Bytes of the files in a folder; other threads may rename one meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@pytest.fixture(params=["tmpfs", "counted"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """A tmpfs where one can be mounted; and, which needs no rights, a folder whose bytes are counted at every flush."""
    place, size = tmp_path / "disk", 4 * MEBIBYTE
    place.mkdir()
    mounted = request.param == "tmpfs" and _mount(place, size)
    if not mounted:
        flush = os.fsync

        def counted(descriptor: int) -> None:
            if held(place) > size:
                raise OSError(28, "No space left on device")
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", counted)
    yield SmallDisk(place, size)
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def _mount(place: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_full_disk_ends_the_run_and_the_next_goes_on(ground: Ground, small_disk: SmallDisk) -> None:
    output = small_disk.place / "out"
    seen: list[CaseRow] = []

    def fill_after_three(row: CaseRow) -> None:
        seen.append(row)
        if len(seen) == 3:
            small_disk.fill(left=2000)

    with pytest.raises(StoppedError) as stopped:
        ground.run(output, report=fill_after_three)
    told = str(stopped.value)
    assert told.startswith(f"the disk took none of {PATIENCE} cases in a row. The last: s")
    assert "No space left on device: make room and run the same command again, whole cases are kept." in told
    done = [row for row in seen if row.status == "done"]
    failed = [row for row in seen if row.status == "failed"]
    assert len(done) >= 3
    assert PATIENCE <= len(failed) <= PATIENCE + WRITE_BEHIND + 1  # and what was computed by then
    assert len(seen) < CASES
    assert f"{len(done)} of {CASES} cases are finished." in told
    ground.check_whole(output, len(done))
    small_disk.make_room()
    rows = ground.run(output)
    assert [row.status for row in rows] == ["kept"] * len(done) + ["done"] * (CASES - len(done))
    ground.check_whole(output, CASES)


def test_case_that_is_too_large_for_the_disk_fails_alone(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file = os.replace

    def refuse(source: str, target: str, **folders: int) -> None:
        if "s3_ifim_high" in str(target) or "s6_planes" in str(target):
            raise OSError(28, "No space left on device")
        replace_file(source, target, **folders)

    monkeypatch.setattr(os, "replace", refuse)
    rows = ground.run(tmp_path)
    assert [row.status for row in rows] == ["failed" if i in (3, 6) else "done" for i in range(CASES)]
    ground.check_whole(tmp_path, CASES - 2)


# --- the clock


def test_clock_that_jumps_changes_nothing(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped on one side of a jump of twenty years, gone on with on the other; files are dated from both."""
    began = time.perf_counter()
    true_time = time.time
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: true_time() + YEAR * (10 if next(jumps) % 2 else -10))
    stop_request, seen = StopRequest(), []

    def stop_after_three(row: CaseRow) -> None:
        seen.append(row)
        if len(seen) == 3:
            stop_request.signal = 2

    ground.run(tmp_path, report=stop_after_three, stop_request=stop_request)
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (number * YEAR / 50,) * 2)  # from 1970 on, all over
    rows = ground.run(tmp_path)
    kept = sum(row.status == "kept" for row in rows)
    assert len(seen) == kept >= 3
    assert [row.status for row in rows] == ["kept"] * kept + ["done"] * (CASES - kept)
    ground.check_whole(tmp_path, CASES)
    took = time.perf_counter() - began
    record = json.loads((tmp_path / "run.json").read_text())
    assert all(0 < seconds < took for seconds in [record["seconds"], *(row.seconds for row in rows)])


# --- a run that is asked to stop


@pytest.mark.parametrize("batch_size", [1, 4])
def test_run_that_is_asked_to_stop_leaves_whole_cases_and_a_table_of_them(
    ground: Ground, tmp_path: Path, batch_size: int, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    stop_request, seen = StopRequest(), []

    def stop_at_first(row: CaseRow) -> None:
        seen.append(row)
        stop_request.signal = 15

    rows = ground.run(tmp_path, report=stop_at_first, stop_request=stop_request, batch_size=batch_size)
    assert rows == sorted(seen, key=lambda row: row.case)
    assert 1 <= len(rows) < CASES
    assert {row.status for row in rows} == {"done"}
    assert [row["case"] for row in rows_of(tmp_path)] == [row.case for row in rows]
    assert {path.name for path in tmp_path.glob("*/")} == {row.case for row in rows}
    assert json.loads((tmp_path / "run.json").read_text())["cases"]["left"] == CASES - len(rows)
