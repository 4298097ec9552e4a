"""Kills runs of the command line at random moments and compares the results with an undisturbed run.

Every kill is a SIGKILL to all processes of `monai-ifim decompose`, whichever engine it uses, as if the machine lost its power:
while it loads, works on cases, or writes tables and page.
After each kill every case with a sidecar is compared with the undisturbed run; a run that ends is compared file by file and
verified, and the next one begins in an empty folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ifim.run.verification.results import verify_results

PHASES = {"loading": 0.1, "cases": 0.7, "tables": 0.2}  # how often a kill is aimed at which
STRIDE = 6  # one part of so many of the cases is at most what a run gets further before it is killed
PATIENCE = 300.0  # seconds after which a run is held to hang
TIMES = ("seconds", "peak_memory_bytes", "verification", "sidecar_sha256")  # which case was verified depends on the process
OF_THE_RUN = ("seconds", "started", "cases", "profile", "written", "run_sha256")
MARKS = ("ok ", "kept ", "FAILED ")
TAG = "IFIM_KILLED_RUN"  # a variable of the environment by which all processes of a run are found
PROGRAM = "monai_ifim.cli.main"
PROCESSES = 2  # of the engines that have several


@dataclass(frozen=True)
class Engine:
    """How the command is started. ranks: number of processes that share the cases, of which the first prints its own; leaves: how
    the temporary files begin that the launcher itself leaves behind when it is killed."""

    before: tuple[str, ...] = ("-m", PROGRAM)
    after: tuple[str, ...] = ()
    ranks: int = 1
    leaves: tuple[str, ...] = ()


ENGINES = {
    "local": Engine(),
    "torchrun": Engine(
        ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}", "-m", PROGRAM),
        ranks=PROCESSES,
        leaves=("torchelastic_",),
    ),
    "ray": Engine(after=("--engine", "ray", "--workers", str(PROCESSES))),
}

Content = dict[str, Any]


@dataclass
class KillTally:
    """Counts of kills and runs. wrong: everything that was lost, damaged or left behind, in words."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    torn: int = 0
    held: int = 0
    resumed: int = 0
    finished: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """Kills of all phases."""
        return sum(self.kills.values())


class Undisturbed:
    """An undisturbed run over scans with a bundle: its files, and the seconds of each phase."""

    def __init__(self, folder: Path, scans: Path, bundle: Path, cases: int, engine: Engine) -> None:
        self.folder, self.cases, self.engine = folder, cases, engine
        self.scans, self.bundle = scans, bundle
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._words = [str(scans), "--bundle", str(bundle), "--head", "categorical", *engine.after, "--output"]
        output, began, marks = folder / "undisturbed", time.monotonic(), []
        with self.started(output) as running:
            for wanted in (1, cases):
                wait_until(lambda wanted=wanted: running.rows() >= wanted, running)  # type: ignore[misc]
                marks.append(time.monotonic())
            running.process.wait(PATIENCE)
        self.loading, self.working, self.ending = marks[0] - began, marks[1] - marks[0], time.monotonic() - marks[1]
        self.content = {case: case_content(output / case) for case in whole_cases(output)}
        self.rows, self.record = table(output), run_record(output)
        self.names = {path.name for path in output.iterdir()}
        if len(self.content) != cases or running.process.returncode:
            raise RuntimeError(f"the undisturbed run failed:\n{running.log.read_text()}")

    @contextmanager
    def started(self, output: Path) -> Iterator[Running]:
        """The command, whose processes do not outlive the block."""
        tag = secrets.token_hex(16)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch), "COLUMNS": "200", TAG: tag}
        log = self.folder / "log"
        with log.open("w") as file:
            command = [sys.executable, *self.engine.before, "decompose", *self._words, str(output)]
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
            running = Running(process, log, tag, self.engine.ranks)
            try:
                yield running
            finally:
                running.kill()


@dataclass(frozen=True)
class Running:
    """A started run, its log, the tag of its processes, and how many of them share the cases."""

    process: subprocess.Popen[bytes]
    log: Path
    tag: str
    ranks: int

    def rows(self) -> int:
        """Number of cases that it has printed, or, if the first of several processes prints its own, about that of all."""
        return self.ranks * sum(line.startswith(MARKS) for line in self.log.read_text(errors="replace").splitlines())

    def kill(self) -> None:
        """SIGKILL to every process of the run, until there is none."""
        while found := tagged_processes(self.tag):
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.005)
        self.process.wait(PATIENCE)


def tagged_processes(tag: str) -> list[int]:
    """Processes that have the tag in their environment and are no zombies."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if f"{TAG}={tag}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def wait_until(holds: Callable[[], bool], running: Running) -> bool:
    """True if the condition came to hold before the run ended; raises TimeoutError if neither happens."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if running.process.poll() is not None:
            return holds()
        if time.monotonic() > until:
            raise TimeoutError(f"the run hangs:\n{running.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.002)
    return True


def kill_once(reference: Undisturbed, output: Path, chance: random.Random, tally: KillTally) -> bool:
    """One run of the command with a kill at a random moment; True if it ended before that."""
    whole = len(list(output.glob("*/*_ifim.json")))
    phase = chance.choices(list(PHASES), list(PHASES.values()))[0]
    rows, delay = 0, chance.uniform(0, reference.loading)
    if phase == "cases" and whole < reference.cases:
        rows = chance.randint(whole, min(whole + max(1, reference.cases // STRIDE), reference.cases))
        delay = chance.uniform(0, 2 * reference.working / reference.cases)
    if phase == "tables" or (phase == "cases" and rows == reference.cases):
        rows, delay = reference.cases, chance.uniform(0, reference.ending)
    with reference.started(output) as running:
        wait_until(lambda: running.rows() >= rows, running)
        time.sleep(delay)
        if running.process.poll() is not None:
            if running.process.returncode:
                tally.wrong.append(f"a run ended with {running.process.returncode}: {running.log.read_text()[-500:]}")
            return True
        running.kill()
        told = running.rows()
    tally.kills["loading" if told == 0 else "tables" if told == reference.cases else "cases"] += 1
    tally.torn += sum(not (place / f"{place.name}_ifim.json").exists() for place in output.glob("*/"))
    tally.held += len(list(output.rglob(".partial-*")))
    return False


def go_on(reference: Undisturbed, output: Path, tally: KillTally) -> None:
    """The same command once more, to its end."""
    with reference.started(output) as running:
        running.process.wait(PATIENCE)
        tally.resumed += 1
        if running.process.returncode:
            tally.wrong.append(f"a resumed run ended with {running.process.returncode}: {running.log.read_text()[-500:]}")


def whole_cases(output: Path) -> list[str]:
    """Names of the cases that have a sidecar."""
    return [path.parent.name for path in sorted(output.glob("*/*_ifim.json"))]


def case_content(folder: Path) -> Content:
    """SHA-256 of each file (uncompressed), and each sidecar without times and memory."""
    found: Content = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith("_ifim.json"):
            sidecar = json.loads(path.read_text(encoding="utf-8"))
            found[path.name] = {key: value for key, value in sidecar.items() if key not in TIMES}
        elif not path.name.startswith("."):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found[path.name] = hashlib.sha256(content).hexdigest()
    return found


def table(output: Path) -> list[dict[str, str]]:
    """Rows of cases.csv without seconds and status."""
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in ("seconds", "status")} for row in csv.DictReader(file)]


def run_record(output: Path) -> Content:
    """run.json without times and counts of this run."""
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return {name: value for name, value in record.items() if name not in OF_THE_RUN}


def damage(reference: Undisturbed, output: Path) -> list[str]:
    """Faults of the cases that have a sidecar, and of cases.csv where it exists."""
    found = []
    for case in whole_cases(output):
        try:
            same = case_content(output / case) == reference.content[case]
        except (OSError, EOFError, ValueError) as error:
            found.append(f"{case} cannot be read: {error}")
            continue
        if not same:
            found.append(f"{case} is not what an undisturbed run makes")
    if (output / "cases.csv").exists() and table(output) != reference.rows:
        found.append("cases.csv is not that of an undisturbed run")
    return found


def unlike(reference: Undisturbed, output: Path) -> list[str]:
    """Faults of a run that ended."""
    found = damage(reference, output)
    found += [f"{case} is lost" for case in sorted(set(reference.content) - set(whole_cases(output)))]
    found += [f"{path.relative_to(output)} is left behind" for path in output.rglob(".partial-*")]
    found += [
        f"{path.name} is left behind among temporary files"
        for path in reference.scratch.iterdir()
        if not path.name.startswith(reference.engine.leaves)
    ]
    names = {path.name for path in output.iterdir()}
    if names != reference.names:
        found.append(f"in the output: {sorted(names ^ reference.names)}")
    found += [finding.line for finding in verify_results(output, reference.bundle, [reference.scans]).findings]
    if len({row["case"] for row in table(output)}) != len(table(output)):
        found.append("a case has two rows")
    return found if run_record(output) == reference.record else [*found, "run.json tells of another run"]


def disturb(reference: Undisturbed, kills: int, seed: int) -> KillTally:
    """Run and kill until there were `kills` kills, and let the last run end."""
    chance, tally = random.Random(seed), KillTally()
    while tally.killed < kills:
        output, made = reference.folder / f"killed-{tally.finished:02d}", False
        while tally.killed < kills and not made:
            made = kill_once(reference, output, chance, tally)
            tally.wrong += damage(reference, output) if output.exists() else []
            if len(whole_cases(output)) == reference.cases and chance.random() < 0.5:
                break
        if not made:
            go_on(reference, output, tally)
        tally.wrong += unlike(reference, output)
        tally.finished += 1
    return tally
