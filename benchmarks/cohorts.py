"""Cases a second of a whole run with batches of 32 compared with single images: reading, writing and the page included."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.approximate import DATA_VARIABLE, SectionSkipped
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.run_record import profile_of_run
from monai_ifim.run.settings import RunSettings

BATCH = 32
CASES = 96
BUNDLE = "mednist_classification"


class WholeRun:
    """A run of the local engine into a new folder, and its page. spent: CPU seconds of each call; shares: of the last one."""

    def __init__(self, bundle: Bundle, cases: list[Case], batch: int) -> None:
        self._bundle, self._cases, self._batch = bundle, cases, batch
        self.spent: list[float] = []
        self.shares: Mapping[str, float] = {}

    def __call__(self) -> None:
        """Run; raises RuntimeError for a case that failed."""
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            settings = RunSettings(Path(folder), CaseSettings("categorical", locality=True), self._batch)
            rows = run_cases(self._bundle, self._cases, settings, lambda row: None)
            write_cohort(Path(folder))
            self.shares = (profile_of_run(Path(folder)) or {"shares": {}})["shares"]
        self.spent.append(time.process_time() - began)
        failed = [row for row in rows if row.status != "done"]
        if failed:
            raise RuntimeError(f"{failed[0].case}: {failed[0].reason}")

    @property
    def profile(self) -> str:
        """The shares in words."""
        return ", ".join(f"{stage} {share:.0%}" for stage, share in self.shares.items())


def cohorts(setting: Setting) -> list[Row]:
    """Cases a second with batches of 32 over those with single images, the default settings of the command line."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise SectionSkipped(f"set {DATA_VARIABLE} to the folder that holds mednist/datalist.json")
    entries = json.loads((Path(folder) / "mednist" / "datalist.json").read_text(encoding="utf-8"))["testing"]
    count = setting.size(CASES, 3)
    images = [str(Path(folder) / entry["image"]) for entry in entries[:: len(entries) // count][:count]]
    bundle, cases = load_bundle(resolve_bundle(BUNDLE), setting.device), find_cases(images)
    case = f"{count} images of 64^2, {BUNDLE}"
    setting.note(case)
    runs = {f"batch {size}": WholeRun(bundle, cases, size) for size in (1, BATCH)}
    timings = setting.measure(runs)
    rates = ", ".join(f"{name} {count / timings.median(name):.3g} cases/s ({run.profile})" for name, run in runs.items())
    cpu = {name: run.spent[1:] for name, run in runs.items()}  # without the round that warms up
    medians = {name: statistics.median(spent) / count for name, spent in cpu.items()}
    of_cpu = ", ".join(f"{name} {1000 * seconds:.3g} ms a case" for name, seconds in medians.items())
    together, alone = f"batch {BATCH}", "batch 1"
    return [
        Row(
            f"cases/s of a whole run, {together} / {alone}",
            case,
            timings.ratio(alone, together),
            Bar(3.0, True),
            "",
            f"{rates}; {timings.describe()}",
            timings.seconds,
        ),
        Row(f"CPU seconds of a whole run, {alone} / {together}", case, medians[alone] / medians[together], None, "", of_cpu, cpu),
    ]
