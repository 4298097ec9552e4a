"""The Ray engine on a local cluster of two CPUs: the local engine's files, and no case lost with a worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.adapt.weights import read_state
from monai_ifim.core import IFIMError
from monai_ifim.io import InputError, identify_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cluster.driver import run_on_ray
from monai_ifim.run.cluster.schedule import ATTEMPTS
from monai_ifim.run.cluster.worker import pack_state, unpack_state
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.stop_request import StopRequest
from monai_ifim.run.table import CaseRow

Contents = Callable[[Path], dict[str, Any]]
Rows = Callable[[Path], list[dict[str, str]]]
OPTIONS = CaseSettings("categorical", rank=2, locality=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def step(expression: str) -> list[dict[str, Any]]:
    """A preprocessing that does something to its process on the way; x: the image."""
    load = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    told = {"_target_": "Lambdad", "keys": "image", "func": f"$lambda x: {expression}", "track_meta": False}
    return [*load, told, {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]}]


def run(
    root: Path, inputs: Path, output: Path, report: Callable[[CaseRow], None] = lambda row: None, workers: int = 2
) -> list[CaseRow]:
    return run_on_ray(root, identify_bundle(root), find_cases([inputs]), RunSettings(output, OPTIONS), report, workers)


def engine_of(output: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((output / "run.json").read_text())["engine"]
    return record


def worker_processes() -> list[int]:
    """Process numbers of the workers of the cluster that this process started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
                parents = [parent_of(int(folder.name)), parent_of(parent_of(int(folder.name)))]
            except OSError:
                continue
            if title.startswith(b"ray::DecomposingWorker") and os.getpid() in parents:
                found.append(int(folder.name))
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_two_workers_give_the_files_and_rows_of_one_process(
    cluster: None, one_thread: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path,
    contents_of: Contents, rows_of: Rows,
) -> None:  # fmt: skip
    root, scans = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", 9)
    broken = scans / "s002.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-90])
    run_cases(load_bundle(root), find_cases([scans]), RunSettings(tmp_path / "one", OPTIONS), lambda row: None)
    seen: list[CaseRow] = []
    rows = run(root, scans, tmp_path / "two", seen.append)
    assert [row.case for row in rows] == [f"s{i:03d}" for i in range(9)]
    assert [row.status for row in rows] == ["failed" if i == 2 else "done" for i in range(9)]
    assert sorted(seen, key=lambda row: row.case) == rows
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    assert contents_of(tmp_path / "two") == contents_of(tmp_path / "one")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert engine_of(tmp_path / "two") == {
        "name": "ray",
        "ray": ray.__version__,
        "workers": 2,
        "cpus_per_worker": 1,
        "gpus_per_worker": 0.0,
        "threads_per_worker": 1,
        "restarts": 0,
    }


@pytest.mark.soak
def test_run_that_is_asked_to_stop_ends_with_what_workers_hold(
    cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path, rows_of: Rows
) -> None:
    root, scans, stop_request = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", 40), StopRequest()

    def stop(row: CaseRow) -> None:
        stop_request.signal = signal.SIGINT

    settings = RunSettings(tmp_path / "out", CaseSettings.of(OPTIONS, {"space": "network", "contents": ("low",)}))
    rows = run_on_ray(root, identify_bundle(root), find_cases([scans]), settings, stop, 2, stop_request)
    assert {row.status for row in rows} == {"done"}
    assert 1 <= len(rows) <= 40 // 2
    assert [row["case"] for row in rows_of(tmp_path / "out")] == [row.case for row in rows]
    assert sorted(path.name for path in (tmp_path / "out").glob("*/")) == [row.case for row in rows]
    assert not list((tmp_path / "out").glob(".partial-*"))


@pytest.mark.soak
def test_workers_killed_in_the_middle_lose_no_case(
    cluster: None, one_thread: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path,
    contents_of: Contents,
) -> None:  # fmt: skip
    """At a moment when there is a finished case that its worker has not told of: it was done in this run, it is not kept."""
    root = make_bundle(tmp_path / "bundle", steps=step("(__import__('time').sleep(0.2), x)[1]"))
    scans, out = write_cohort(tmp_path / "in", 12), tmp_path / "two"
    run_cases(load_bundle(root), find_cases([scans]), RunSettings(tmp_path / "one", OPTIONS), lambda row: None)
    seen: list[str] = []
    killed: list[int] = []
    over = threading.Event()

    def kill_when_untold() -> None:
        while not over.wait(0.01):  # workers may take minutes to start on a machine that has other work
            if {path.parent.name for path in out.glob("*/*_ifim.json")} - set(seen):
                killed.extend(worker_processes())
                for process in killed:
                    os.kill(process, signal.SIGKILL)
                return

    watcher = threading.Thread(target=kill_when_untold)
    watcher.start()
    try:
        rows = run(root, scans, out, lambda row: seen.append(row.case))
    finally:
        over.set()
        watcher.join()
    assert engine_of(out)["restarts"] == len(killed) > 0
    assert {row.status for row in rows} == {"done"}
    assert sorted(seen) == [row.case for row in rows] == [f"s{i:03d}" for i in range(12)]
    assert contents_of(out) == contents_of(tmp_path / "one")


@pytest.mark.soak
def test_a_case_that_kills_its_worker_each_time_is_a_failed_row_and_the_others_are_done(
    cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    kill = "__import__('os').kill(__import__('os').getpid(), 9)"
    root = make_bundle(tmp_path / "bundle", steps=step(f"{kill} if 's003' in x.meta['filename_or_obj'] else x"))
    seen: list[CaseRow] = []
    rows = run(root, write_cohort(tmp_path / "in", 8), tmp_path / "out", seen.append)
    assert [row.case for row in rows if row.status != "done"] == ["s003"]
    assert rows[3].status == "failed"
    assert rows[3].input == "s003.nii.gz"
    assert "died 3 times on this case" in rows[3].reason
    assert len(seen) == 8
    assert engine_of(tmp_path / "out")["restarts"] == ATTEMPTS
    assert not (tmp_path / "out" / "s003" / "s003_ifim.json").exists()


@pytest.mark.soak
def test_an_interrupted_run_leaves_no_worker_and_whole_cases_which_the_next_run_keeps(
    cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path, contents_of: Contents
) -> None:
    root = make_bundle(tmp_path / "bundle", steps=step("(__import__('time').sleep(0.2), x)[1]"))
    scans, out = write_cohort(tmp_path / "in", 8), tmp_path / "out"

    def interrupt(row: CaseRow) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, scans, out, interrupt)
    deadline = time.monotonic() + 20
    while worker_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker_processes() == []
    assert not list(out.glob(".*"))
    assert not (out / "cases.csv").exists()
    whole = {sidecar.parent.name for sidecar in out.glob("*/*_ifim.json")}
    before = {name: content for name, content in contents_of(out).items() if name.split("/")[0] in whole}
    assert {row.case for row in run(root, scans, out) if row.status == "kept"} == whole
    assert len(whole) in range(1, 8)
    after = contents_of(out)
    assert {name: after[name] for name in before} == before
    files = Counter(name.split("/")[0] for name in after)
    assert len(files) == 8
    assert len(set(files.values())) == 1


@pytest.mark.soak
def test_a_bundle_that_no_worker_can_load_is_refused_with_its_reason(
    cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle")
    config = root / "configs" / "inference.json"
    config.write_text(config.read_text().replace("GELU", "NoSuchLayer"))
    with pytest.warns(UserWarning, match="could not start"), pytest.raises(InputError, match="NoSuchLayer"):
        run(root, write_cohort(tmp_path / "in", 2), tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "cases.csv").exists()


@pytest.mark.soak
def test_weights_are_read_once_and_shared_by_the_workers_of_a_node(
    cluster: None, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle")
    image = torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_bundle(root).network(image).numpy()

    def look(packed: Any) -> tuple[int, bool, list[bool], Any]:
        network = load_bundle(root, state=unpack_state(packed)).network
        ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        named = [(*(int(end, 16) for end in words[0].split("-")), words[5]) for words in ranges if len(words) > 5]
        places = [parameter.data_ptr() for parameter in network.parameters()]
        mapped = [any("plasma" in name and low <= place < high for low, high, name in named) for place in places]
        with torch.no_grad():
            answer = network(image).numpy()
        writable = any(values.flags.writeable for values, _, _ in packed.values())
        return os.getpid(), writable, mapped, answer

    state = read_state(root)
    assert state is not None
    packed = ray.put(pack_state(state))
    answers = ray.get([ray.remote(num_cpus=1)(look).remote(packed) for _ in range(2)])
    assert len({process for process, _, _, _ in answers}) == 2
    for _, writable, mapped, answer in answers:
        assert not writable
        assert mapped == [True] * 4
        np.testing.assert_array_equal(answer, expected)


SCRIPT = """
import sys
from pathlib import Path
import ray
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import identify_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cluster.driver import run_on_ray
from monai_ifim.run.settings import RunSettings
settings = RunSettings(Path("out"), CaseSettings("categorical", rank=2, locality=True))
rows = run_on_ray(Path("bundle"), identify_bundle(Path("bundle")), find_cases(["in"]), settings, lambda row: None, 1)
print([row.status for row in rows], ray.is_initialized())
"""


@pytest.mark.soak
@pytest.mark.parametrize("existing", [True, False])
def test_relative_paths_on_a_cluster_of_its_own_and_on_one_that_stays(
    existing: bool, cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    make_bundle(tmp_path / "bundle")
    write_cohort(tmp_path / "in", 3)
    address = ray.get_runtime_context().gcs_address
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"RAY_ADDRESS": address} if existing else {})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['done', 'done', 'done'] False"
    assert [node["Alive"] for node in ray.nodes()] == [True]
    assert engine_of(tmp_path / "out")["cpus_per_worker"] == (2 if existing else os.cpu_count())


def test_more_workers_than_fit_are_refused_before_anything_is_written(
    cluster: None, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    root, scans = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", 1)
    with pytest.raises(IFIMError, match=r"3 workers do not fit.*2 CPUs.*give --workers 2 or fewer"):
        run(root, scans, tmp_path / "out", workers=3)
    assert not (tmp_path / "out").exists()


def test_without_ray_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(IFIMError, match=r'pip install "monai-ifim\[ray\]"'):
        run(make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", 1), tmp_path / "out")


def test_shared_weights_of_another_kind_are_copied_and_buffers_always(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    root = make_bundle(tmp_path / "bundle", dims=2)
    network = "torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.LazyLinear(3))"
    config = root / "configs" / "inference.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"network_def": "$" + network.replace("LazyLinear(3)", "Linear(320, 3)")}))
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(320, 3))
    weights = made.state_dict()
    weights["3.weight"] = weights["3.weight"].to(torch.bfloat16)
    torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, root / "models" / "model.pt")
    state = read_state(root)
    assert state is not None
    plain, shared = load_bundle(root).network.state_dict(), load_bundle(root, state=state).network.state_dict()
    assert all(torch.equal(plain[name], shared[name]) and plain[name].dtype == shared[name].dtype for name in plain)
    same = {name for name in shared if shared[name].data_ptr() == state[name].data_ptr()}
    assert same == {"0.weight", "0.bias", "1.weight", "1.bias", "3.bias"}
