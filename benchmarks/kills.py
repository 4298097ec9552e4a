"""Kills runs at random moments, goes on with the same command, and compares what is left with a run that nobody disturbed.

python -m benchmarks.kills [--kills N] [--cases N] [--seed N] [--output FOLDER]

Every kill is a SIGKILL to the process group of `monai-ifim decompose`: while it loads, while it works on cases, or while it
writes tables and page. After each kill all that calls itself whole is compared with the undisturbed run; a run that comes to
its end is compared file by file, and the next one begins in an empty folder. Results go to kills.json and kills.md in
benchmarks/results (or --output); the exit status is 1 where anything was lost, damaged or left behind.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scaling import write_bundle, write_scans
from benchmarks.timing import count, environment_stamp

RESULTS = Path(__file__).parent / "results"
PHASES = {"loading": 0.1, "cases": 0.7, "tables": 0.2}  # how often a kill is aimed at which
STRIDE = 6  # one part of so many of the cases is at most what a run gets further before it is killed
SIZE = 16  # voxels along each side of what the network sees
PATIENCE = 300.0  # seconds after which a run is held to hang
TIMES = ("seconds", "peak_memory_bytes")
OF_THE_RUN = ("seconds", "started", "cases")
MARKS = ("ok ", "kept ", "FAILED ")

Content = dict[str, Any]


@dataclass
class Tally:
    """What happened. wrong: everything that was lost, damaged or left behind, in words."""

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


class Ground:
    """Scans, a bundle, and what an undisturbed run makes of them in how many seconds."""

    def __init__(self, folder: Path, cases: int) -> None:
        self.folder, self.cases = folder, cases
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        scans, bundle = write_scans(folder / "scans", cases, SIZE + 4), write_bundle(folder / "bundle", SIZE)
        self._words = [str(scans), "--bundle", str(bundle), "--head", "categorical", "--output"]
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
            raise SystemExit(f"the undisturbed run failed:\n{running.log.read_text()}")

    @contextmanager
    def started(self, output: Path) -> Iterator[Running]:
        """The command in a process group of its own, which does not outlive the block."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch), "COLUMNS": "200"}
        log = self.folder / "log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "monai_ifim.cli.main", "decompose", *self._words, str(output)]
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )  # fmt: skip
            running = Running(process, log)
            try:
                yield running
            finally:
                running.kill()


@dataclass(frozen=True)
class Running:
    """A started run, and what it has printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def rows(self) -> int:
        """Cases that it has told of."""
        return sum(line.startswith(MARKS) for line in self.log.read_text(errors="replace").splitlines())

    def kill(self) -> None:
        """Nobody of the group can heed this."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)


def wait_until(holds: Callable[[], bool], running: Running) -> bool:
    """Whether it came to hold before the run ended; raises TimeoutError where neither happens."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if running.process.poll() is not None:
            return holds()
        if time.monotonic() > until:
            raise TimeoutError(f"the run hangs:\n{running.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.002)
    return True


def kill_once(ground: Ground, output: Path, chance: random.Random, tally: Tally) -> bool:
    """One run of the command with a kill at a random moment; whether it came to its end before that."""
    whole = len(list(output.glob("*/*_ifim.json")))
    phase = chance.choices(list(PHASES), list(PHASES.values()))[0]
    rows, delay = 0, chance.uniform(0, ground.loading)
    if phase == "cases" and whole < ground.cases:
        rows = chance.randint(whole, min(whole + max(1, ground.cases // STRIDE), ground.cases))
        delay = chance.uniform(0, 2 * ground.working / ground.cases)
    if phase == "tables" or (phase == "cases" and rows == ground.cases):
        rows, delay = ground.cases, chance.uniform(0, ground.ending)
    with ground.started(output) as running:
        wait_until(lambda: running.rows() >= rows, running)
        time.sleep(delay)
        if running.process.poll() is not None:
            if running.process.returncode:
                tally.wrong.append(f"a run ended with {running.process.returncode}: {running.log.read_text()[-500:]}")
            return True
        running.kill()
        told = running.rows()
    tally.kills["loading" if told == 0 else "tables" if told == ground.cases else "cases"] += 1
    tally.torn += sum(not (place / f"{place.name}_ifim.json").exists() for place in output.glob("*/"))
    tally.held += len(list(output.rglob(".partial-*")))
    return False


def go_on(ground: Ground, output: Path, tally: Tally) -> None:
    """The same command once more, to its end."""
    with ground.started(output) as running:
        running.process.wait(PATIENCE)
        tally.resumed += 1
        if running.process.returncode:
            tally.wrong.append(f"a resumed run ended with {running.process.returncode}: {running.log.read_text()[-500:]}")


def whole_cases(output: Path) -> list[str]:
    """Names of the cases that have a sidecar."""
    return [path.parent.name for path in sorted(output.glob("*/*_ifim.json"))]


def case_content(folder: Path) -> Content:
    """Hash of each file, of what is in it where it is compressed, and each sidecar without what passes."""
    found: Content = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith("_ifim.json"):
            sidecar = json.loads(path.read_text(encoding="utf-8"))
            found[path.name] = {key: value for key, value in sidecar.items() if key not in TIMES}
        elif not path.name.startswith(".partial-"):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found[path.name] = hashlib.sha256(content).hexdigest()
    return found


def table(output: Path) -> list[dict[str, str]]:
    """Rows of cases.csv without what a kept case has otherwise."""
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in ("seconds", "status")} for row in csv.DictReader(file)]


def run_record(output: Path) -> Content:
    """run.json without what passes."""
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return {name: value for name, value in record.items() if name not in OF_THE_RUN}


def damage(ground: Ground, output: Path) -> list[str]:
    """What is wrong with cases that call themselves whole, and with tables that are there."""
    found = []
    for case in whole_cases(output):
        try:
            same = case_content(output / case) == ground.content[case]
        except (OSError, EOFError, ValueError) as error:
            found.append(f"{case} cannot be read: {error}")
            continue
        if not same:
            found.append(f"{case} is not what an undisturbed run makes")
    if (output / "cases.csv").exists() and table(output) != ground.rows:
        found.append("cases.csv is not that of an undisturbed run")
    return found


def unlike(ground: Ground, output: Path) -> list[str]:
    """What is wrong with a run that came to its end."""
    found = damage(ground, output)
    found += [f"{case} is lost" for case in sorted(set(ground.content) - set(whole_cases(output)))]
    found += [f"{path.relative_to(output)} is left behind" for path in output.rglob(".partial-*")]
    found += [f"{path.name} is left behind among temporary files" for path in ground.scratch.iterdir()]
    names = {path.name for path in output.iterdir()}
    if names != ground.names:
        found.append(f"in the output: {sorted(names ^ ground.names)}")
    if len({row["case"] for row in table(output)}) != len(table(output)):
        found.append("a case has two rows")
    return found if run_record(output) == ground.record else [*found, "run.json tells of another run"]


def disturb(ground: Ground, kills: int, seed: int) -> Tally:
    """Runs and kills until there were so many, then the last run to its end."""
    chance, tally = random.Random(seed), Tally()
    while tally.killed < kills:
        output, made = ground.folder / f"killed-{tally.finished:02d}", False
        while tally.killed < kills and not made:
            made = kill_once(ground, output, chance, tally)
            tally.wrong += damage(ground, output) if output.exists() else []
            whole = len(whole_cases(output))
            print(f"{tally.killed:4d} kills {tally.kills}, {whole} whole, {len(tally.wrong)} wrong", flush=True)
            if whole == ground.cases and chance.random() < 0.5:
                break
        if not made:
            go_on(ground, output, tally)
        tally.wrong += unlike(ground, output)
        tally.finished += 1
    return tally


def markdown(tally: Tally, ground: Ground, seed: int, stamp: str) -> str:
    """The record for people."""
    verdict = "nothing was lost, damaged or left behind." if not tally.wrong else f"{len(tally.wrong)} findings, see below."
    lines = [
        "# Killed at random moments",
        "",
        f"{count(tally.killed, 'kill')} -9 in runs over {ground.cases} cases: {verdict}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| killed while {text} | {tally.kills[name]} |" for name, text in WORDS.items()),
        f"| half-written cases that lay there after a kill, all in all | {tally.torn} |",
        f"| files under a temporary name that lay there after a kill | {tally.held} |",
        f"| runs that came to their end and were compared | {tally.finished} |",
        "",
        "After each kill every case with a sidecar, and the table where there was one, were compared with a run that nobody "
        f"disturbed ({ground.loading:.1f} s until its first case, {ground.working:.1f} s for all, {ground.ending:.1f} s for "
        "tables and page); at the end of a run all files, byte by byte (NIfTI without its compression) but for times and memory. "
        f"Random numbers begin at {seed}.",
        "",
        *(f"- {one}" for one in tally.wrong),
        *([""] if tally.wrong else []),
        stamp,
    ]
    return "\n".join(lines) + "\n"


WORDS = {"loading": "it loads", "cases": "it works on cases", "tables": "it writes tables and page"}


def main() -> int:
    """Kill, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(Path(name), arguments.cases)
        tally = disturb(ground, arguments.kills, arguments.seed)
        stamp = f"{environment_stamp()}; {datetime.date.today()}; {(time.monotonic() - began) / 60:.0f} minutes"
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = {"environment": stamp, "cases": arguments.cases, "seed": arguments.seed, **asdict(tally)}
    (arguments.output / "kills.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(tally, ground, arguments.seed, stamp)
    (arguments.output / "kills.md").write_text(text, encoding="utf-8")
    print(text)
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
