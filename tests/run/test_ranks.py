"""Several processes of torchrun: every case once, one table, and a lost rank is made up for by running again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.ranks import Rank, rank_of_process
from monai_ifim.run.settings import RunSettings

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
BUNDLE_RUN = ["-m", "monai.bundle", "run", "--config_file", "['configs/inference.yaml','configs/multi_gpu.yaml']"]
LUMPY = "lumpy_lesion_detection_3d"

Contents = Callable[[Path], dict[str, Any]]
Rows = Callable[[Path], list[dict[str, str]]]


def start(*words: Any, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *(str(word) for word in words)], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def scans(tmp_path: Path, write_cohort: Callable[..., Path]) -> Path:
    """Seven scans, which two ranks cannot share evenly, one of them broken."""
    folder = write_cohort(tmp_path / "in", 7)
    broken = folder / "s002.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-90])
    return folder


@pytest.mark.slow
def test_a_bundle_over_two_ranks_is_the_bundle_in_one_process(
    one_thread: None, scans: Path, tmp_path: Path, contents_of: Contents, rows_of: Rows
) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(resolve_bundle(LUMPY), root)
    bundle = load_bundle(root)
    options = CaseSettings("categorical", energy=0.9, locality=True)
    run_cases(bundle, find_cases([scans]), RunSettings(tmp_path / "one", options), lambda row: None)
    words = ("--bundle_root", ".", "--input", scans, "--output_dir", tmp_path / "two", "--energy", "0.9")
    finished = start(*BUNDLE_RUN, *words, folder=root)
    assert finished.returncode == 1
    assert "1 of 7 cases failed" in finished.stderr
    assert contents_of(tmp_path / "two") == contents_of(tmp_path / "one")
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    assert [row["status"] for row in rows_of(tmp_path / "two")] == ["done", "done", "failed", "done", "done", "done", "done"]
    assert "s002" in (tmp_path / "two" / "index.html").read_text(encoding="utf-8")
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (record["engine"], record["profile"]["processes"]) == ({"name": "torchrun", "ranks": 2}, 2)
    assert record["profile"]["seconds"]["computing"] > 0


def killer(marker: Path) -> dict[str, Any]:
    """A preprocessing step that kills its process the first time it sees the scan whose mean is the sixth's."""
    kill = f"(open(r'{marker}', 'x').close(), __import__('os').kill(__import__('os').getpid(), 9))"
    target = "'s005' in x.meta['filename_or_obj']"
    there = f"__import__('os').path.exists(r'{marker}')"
    return {
        "_target_": "Lambdad",
        "keys": "image",
        "func": f"$lambda x: {kill} if {target} and not {there} else x",
        "track_meta": False,
    }


@pytest.mark.soak
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_lost_rank_costs_no_case(
    restarts: int,
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    write_cohort: Callable[..., Path],
    contents_of: Contents,
    rows_of: Rows,
) -> None:
    """With --max_restarts torchrun runs again by itself; without, somebody else does."""
    marker, scans = tmp_path / "marker", write_cohort(tmp_path / "in", 10)
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        killer(marker),
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
    ]
    bundle = make_bundle(tmp_path / "bundle", steps=steps)
    words = ("decompose", scans, "--bundle", bundle, "--head", "categorical", "--save", "low", "-o")
    lost = start("--max_restarts", restarts, "-m", "monai_ifim.cli.main", *words, tmp_path / "lost")
    assert marker.exists()
    if restarts == 0:
        assert lost.returncode != 0
        assert not (tmp_path / "lost" / "cases.csv").exists()
        finished = start("-m", "monai_ifim.cli.main", *words, tmp_path / "lost")
        assert finished.returncode == 0, finished.stderr[-2000:]
    else:
        assert lost.returncode == 0, lost.stderr
    whole = start("-m", "monai_ifim.cli.main", *words, tmp_path / "whole")
    assert whole.returncode == 0
    assert "10 done, 0 failed" in whole.stdout
    assert contents_of(tmp_path / "lost") == contents_of(tmp_path / "whole")
    cases = [row["case"] for row in rows_of(tmp_path / "lost")]
    assert cases == [row["case"] for row in rows_of(tmp_path / "whole")]
    assert len(set(cases)) == 10


PROBE = """
import json, psutil, sys, tempfile
from pathlib import Path
from monai_ifim.run.ranks import _gather, _process_group, rank_of_process
rank = rank_of_process()
with _process_group(rank) as group:
    processes = [psutil.Process(), psutil.Process().parent()]
    listening = {tuple(c.laddr) for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    every = _gather(sorted(listening), group)
if rank.number == 0:
    Path(sys.argv[1]).write_text(json.dumps(every))
"""


@pytest.mark.soak
def test_documented_command_listens_on_loopback_only_and_leaves_nothing_that_others_may_read(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "many_cases.md").read_text(encoding="utf-8")
    variable, command = re.findall(r"^export (\w+=1)\n(torchrun .+?) --no-python ", page, flags=re.MULTILINE)[0]
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    environment = os.environ | dict([variable.split("=")]) | {"TMPDIR": str(tmp_path / "temporary")}
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *shlex.split(command)[1:],
        str(tmp_path / "probe.py"),
        str(tmp_path / "found"),
    ]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    every = json.loads((tmp_path / "found").read_text())
    assert len(every) == 2
    assert all(every)
    assert {address for rank in every for address, _ in rank} == {"127.0.0.1"}
    assert [path.name for path in (tmp_path / "temporary").iterdir() if path.stat().st_mode & 0o077] == []


def test_one_process_without_torchrun_is_the_only_rank() -> None:
    assert rank_of_process({}) == Rank(0, 0, 1)
    assert rank_of_process({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}) == Rank(5, 1, 8)


@pytest.mark.parametrize(("size", "cases"), [(2, 7), (3, 3), (4, 2), (1, 0)])
def test_shares_cover_every_case_once(size: int, cases: int) -> None:
    shares = [list(range(cases))[rank.number :: rank.size] for rank in (Rank(i, i, size) for i in range(size))]
    assert sorted(case for share in shares for case in share) == list(range(cases))
    assert [len(share) for share in shares] == [Rank(i, i, size).share(cases) for i in range(size)]
