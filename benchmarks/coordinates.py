"""What named coordinates add to the exact decomposition, and how far predicted divergences hold for finite moves.

python -m benchmarks.coordinates [--rounds N] [--output FOLDER] [--quick]

One thread, CPU seconds (user and system), with and without coordinates by turns. The results go to coordinates-cpu.json and
coordinates-cpu.md in benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import Bar, Comparison, Row, Section
from benchmarks.stamp import take_stamp
from benchmarks.tables import full_table
from benchmarks.timing import Setting
from monai_ifim import decompose, decompose_scan
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.image_places import place_of_scan
from monai_ifim.coordinates import Acquisition, Family, Place, Placement
from monai_ifim.core.coordinates import BoundFamilies
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.evaluation.demonstration import demo_slice, demo_volume
from monai_ifim.io.installation import resolve_bundle

RESULTS = Path(__file__).parent / "results"
ROUNDS = 9
MOST_ADDED = 1.25
MOVES = {"mm": 1.0, "degree": 1.0, "%": 1.0, "pixel": 1.0, "mm^2": 1.0, "pixel^2": 1.0, "unit of the image": 0.01}
BUNDLES: dict[str, Callable[[Path], Path]] = {
    "mednist_classification": lambda folder: demo_slice(),
    "lumpy_lesion_detection_3d": demo_volume,
}


def cases() -> Iterator[tuple[str, Bundle, Any]]:
    """The shipped classifiers with the demonstration's image of each."""
    with TemporaryDirectory() as folder:
        for name, image in BUNDLES.items():
            yield name, load_bundle(resolve_bundle(name)), image(Path(folder))


def costs(setting: Setting) -> Iterator[Row]:
    """A row per bundle and space: decomposition with twelve coordinates over that without."""
    for name, bundle, path in cases():
        image = bundle.preprocess(path).as_tensor()[None]
        run = partial(decompose, bundle.network, image, method="exact", verify="never")
        yield _compared(setting, f"{name}, network space", run, twelve(image.ndim - 2, torch.eye(4)))
        scan = bundle.read(path)[bundle.image_key]
        through = partial(decompose_scan, bundle.network, bundle.preprocessing, scan, method="exact", verify="never")
        yield _compared(setting, f"{name}, scanner space", through, twelve(scan.ndim - 1, place_of_scan(scan).affine))


def _compared(setting: Setting, case: str, run: Any, families: list[Family]) -> Row:
    setting.note(case)
    timings = setting.measure({"with": lambda: run(coordinates=families), "without": run})
    bar = Bar(MOST_ADDED, False)
    return Row("with / without coordinates", case, timings.ratio("with", "without"), bar, "", timings.describe(), timings.seconds)


def twelve(axes: int, affine: Any) -> list[Family]:
    """Placement, acquisition, and as many bias fields as are lacking."""
    fields = 1 if axes == 3 else 4
    return [Placement(affine), Acquisition(affine=affine), _Some(Acquisition("mr", affine), 4, 4 + fields)]


class _Some(Family):
    """Some coordinates of a family."""

    kind = "some"

    def __init__(self, family: Family, start: int, stop: int) -> None:
        self._family, self._some = family, slice(start, stop)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._family.names[self._some]

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._family.units[self._some]

    def bound(self, image: Tensor, place: Place) -> Family:
        """See `Family`."""
        return _Some(self._family.bound(image, place), self._some.start, self._some.stop)

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        return self._family.tangents(image, self._some.start + start, self._some.start + stop)

    def moved(self, image: Tensor, theta: Any) -> Tensor:
        """See `Family`."""
        return self._family.moved(image, [0.0] * self._some.start + list(theta))

    def describe(self) -> dict[str, Any]:
        """See `Family`."""
        return self._family.describe()


def moves(setting: Setting) -> Iterator[Row]:
    """A row per bundle and coordinate: the divergence that a finite move of the scan measures over the predicted one."""
    for name, bundle, path in cases():
        setting.note(f"moves of {name}")
        scan = bundle.read(path)[bundle.image_key]
        place = place_of_scan(scan)
        families: list[Family] = [Placement(place.affine), Acquisition(affine=place.affine)]
        found = decompose_scan(bundle.network, bundle.preprocessing, scan, verify="never", coordinates=families)
        bound = BoundFamilies.of(families, found.image, [place])
        if found.coordinates is None:
            continue
        for number, unit in enumerate(bound.units):
            amount = MOVES[unit]
            if unit == "unit of the image":
                amount *= float(found.image.max() - found.image.min())
            predicted = float(found.coordinates.nats_per_unit[0, number]) * amount**2
            moved = scan.clone()
            moved[...] = bound.moved(number, amount)[0]
            measured = float(CategoricalHead().divergence(found.logits, _logits(bundle, moved, path)))
            ratio = measured / predicted if predicted > 0 else None
            details = f"predicted {predicted:.3g} nats, measured {measured:.3g}"
            case = f"{name}, {bound.names[number]} by {amount:.3g} {unit}"
            yield Row("measured / predicted divergence", case, ratio, None, "", details)


@torch.no_grad()
def _logits(bundle: Bundle, scan: Any, path: Path) -> Tensor:
    """Logits [1, C] of a scan, by the bundle's own preprocessing and network."""
    prepared = bundle.prepare({bundle.image_key: scan}, path)
    logits: Tensor = bundle.network(prepared.as_tensor()[None])
    return logits


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(1 if arguments.quick else arguments.rounds, torch.device("cpu"), arguments.quick, time.process_time)
    stamp, sections = take_stamp(), dict[str, Section]()
    for title, measure in (("cost, CPU seconds, one thread", costs), ("finite moves of the scan", moves)):
        rows = list[Row]()
        for row in measure(setting):
            print(f"{row.what} | {row.case} | {row.value_text} | {row.bar_text} {row.holds_text} | {row.details}", flush=True)
            rows.append(row)
        sections[title] = Section(stamp, tuple(rows))
    comparison = Comparison("cpu", sections, arguments.quick)
    stem = arguments.output / ("coordinates-cpu-quick" if arguments.quick else "coordinates-cpu")
    comparison.write(stem.with_suffix(".json"))
    stem.with_suffix(".md").write_text(full_table(comparison), encoding="utf-8")


if __name__ == "__main__":
    main()
