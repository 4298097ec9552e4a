"""Runs `monai-ifim demo`, and keeps the numbers that it gives in docs/results/demo.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docs.figures.catalogue import RESULTS

TOLERANCE = 0.01  # relative: another processor rounds differently, and a saturated sum amplifies it
NUMBER = re.compile(r"[-\N{MINUS SIGN}]?\d+(?:\.\d+)?(?:e[-\N{MINUS SIGN}]?\d+)?")

Results = dict[str, Any]


def run_demo(output: Path) -> Results:
    """The demo's files in `output`, and its results; raises RuntimeError where it fails."""
    from typer.testing import CliRunner

    from monai_ifim.cli.main import app

    ended = CliRunner().invoke(app, ["demo", "--output", str(output), "--no-open"])
    if ended.exit_code:
        raise RuntimeError(f"monai-ifim demo ended with {ended.exit_code}: {ended.output}")
    return results_of(output)


def results_of(output: Path) -> Results:
    """What the demo found, case by case (its sentence, the spectrum, the windows in which the maps are shown), and `hero`'s."""
    from docs.figures.hero import measured
    from monai_ifim.evaluation.demo_cases import demo_cases, find
    from monai_ifim.io import read_sidecar
    from monai_ifim.io.maps import MapContent

    cases = []
    for case in demo_cases(output / "input"):
        folder = output / case.bundle / case.image.name.partition(".")[0]
        sidecar = read_sidecar(folder / f"{folder.name}_ifim.json")
        windows = {MapContent.of(entry).label: entry["window"] for entry in sidecar["files"] if entry["window"] is not None}
        found = {"bundle": case.bundle, "case": folder.name, "sentence": find(case, folder).sentence}
        cases.append(found | {"eigenvalues": sidecar["eigenvalues"], "trace": sidecar["trace"], "windows": windows})
    return {"cases": cases, "hero": measured(output)}


def read_results() -> Results:
    """The results that the pages quote."""
    results: Results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def keep_results(found: Results) -> None:
    """Write the results, unless those that are there agree: figures drawn from them then stay as they are."""
    if not RESULTS.is_file() or differences(read_results(), found):
        RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def differences(stored: Any, found: Any, place: str = "demo.json") -> list[str]:
    """A sentence for each value that differs: numbers, also those inside of texts, by more than TOLERANCE."""
    if isinstance(stored, dict) and isinstance(found, dict):
        if stored.keys() != found.keys():
            return [f"{place}: entries {sorted(stored.keys() ^ found.keys())}"]
        return [line for key in stored for line in differences(stored[key], found[key], f"{place}, {key}")]
    if isinstance(stored, list) and isinstance(found, list):
        if len(stored) != len(found):
            return [f"{place}: {len(stored)} entries, found {len(found)}"]
        return [line for i in range(len(stored)) for line in differences(stored[i], found[i], f"{place}, {i}")]
    if isinstance(stored, str) and isinstance(found, str):
        same = NUMBER.sub("#", stored) == NUMBER.sub("#", found)
        return differences(_values(stored), _values(found), place) if same else [f"{place}: {stored!r}, found {found!r}"]
    if _are_numbers(stored, found):
        scale = max(abs(stored), abs(found))
        return [] if abs(stored - found) <= TOLERANCE * scale else [f"{place}: {stored}, found {found}"]
    return [] if stored == found else [f"{place}: {stored!r}, found {found!r}"]


def _values(text: str) -> list[float]:
    return [float(found.replace("\N{MINUS SIGN}", "-")) for found in NUMBER.findall(text)]


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
