"""The cases of `monai-ifim demo`, whose truth is known, and what is found in them, a sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine, voxel_sizes

from monai_ifim.display import numbers
from monai_ifim.evaluation.demonstration import HEAD_CLASS, PlantedLesion, demo_head, demo_lesion, planted_lesion
from monai_ifim.io import read_sidecar

__all__ = ["DemoCase", "Finding", "Peak", "demo_cases", "find", "sensitivity_peak"]

MM2_PER_CM2 = 100


@dataclass(frozen=True)
class DemoCase:
    """An image for a bundle of the package, and the truth about it.

    Args:
        bundle: name of the bundle.
        what: the image in a few words.
        image: its file.
        head: what the network's output is.
        answer: the class that is right, or the label whose volume is.
        lesion: the lesion that was planted, None in a real image.
    """

    bundle: str
    what: str
    image: Path
    head: str
    answer: str
    lesion: PlantedLesion | None = None


@dataclass(frozen=True)
class Peak:
    """The voxel of the largest sensitivity, seen from a planted lesion.

    Args:
        place: of the voxel, in mm to the right, to the front and upwards (RAS).
        distance: from the centre of the lesion, in mm.
        inside: whether the voxel belongs to the lesion's mask.
    """

    place: tuple[float, ...]
    distance: float
    inside: bool


@dataclass(frozen=True)
class Finding:
    """What a run found in a case of the demo.

    Args:
        sentence: for people.
        right: whether the answer is right, and the sensitivity largest in the lesion where one was planted.
    """

    sentence: str
    right: bool


def demo_cases(folder: Path, root: Path | None = None) -> tuple[DemoCase, ...]:
    """The cases; the generated images are written to `folder` unless they are there. root: see `demo_volume`."""
    detected, outlined = demo_lesion(folder, root), planted_lesion(folder, root)
    return (
        DemoCase("mednist_classification", "CT slice of a head", demo_head(folder, root), "categorical", HEAD_CLASS),
        DemoCase("lumpy_lesion_detection_3d", "Generated volume", detected.path, "categorical", "lesion", detected),
        DemoCase("lumpy_segmentation_3d", "Generated volume to outline", outlined.path, "volumes", "lesion", outlined),
    )


def find(case: DemoCase, folder: Path) -> Finding:
    """What was found in a case, from the files in the folder that a run made of it; raises InputError where they are missing."""
    sidecar = read_sidecar(folder / f"{folder.name}_ifim.json")
    answer, right = _volume(case, sidecar) if case.head == "volumes" else _class(case, sidecar)
    if case.lesion is None:
        return Finding(f"{case.what}: {answer}. {_spread(folder, sidecar)}.", right)
    peak = sensitivity_peak(folder, case.lesion)
    planted = f"with a lesion of {_ml(case.lesion.volume)} planted at {_place(case.lesion.centre)}"
    side = "inside it" if peak.inside else "outside of it"
    found = f"The sensitivity is largest at {_place(peak.place)}, {numbers.number(peak.distance, 2)} mm from the centre, {side}"
    return Finding(f"{case.what} {planted}: {answer}. {found}.", right and peak.inside)


def sensitivity_peak(folder: Path, lesion: PlantedLesion) -> Peak:
    """The peak of the sensitivity in the folder of a case that was made of `lesion.path`, on the grid of that volume.

    Raises:
        InputError: where the folder has no sidecar of a case.
        ValueError: where the map lies on another grid than the lesion's mask.
    """
    image = _sensitivity(folder, read_sidecar(folder / f"{folder.name}_ifim.json"))
    values = np.asarray(image.dataobj)
    if values.shape != tuple(lesion.mask.shape):
        raise ValueError(f"{folder.name}: {values.shape} voxels of sensitivity, {tuple(lesion.mask.shape)} of the lesion's mask")
    voxel = tuple(int(index) for index in np.unravel_index(int(values.argmax()), values.shape))
    place = apply_affine(image.affine, voxel)
    distance = float(np.linalg.norm(place - np.asarray(lesion.centre)))
    return Peak(tuple(place.tolist()), distance, bool(lesion.mask[voxel]))


def _class(case: DemoCase, sidecar: dict[str, Any]) -> tuple[str, bool]:
    """The likeliest class in words, and whether it is the right one."""
    probabilities = sidecar["prediction"]["probability"]
    name = max(probabilities, key=probabilities.__getitem__)
    right = name == case.answer
    verdict = "which is right" if right else f"but it is {case.answer}"
    return f"the answer is {name} with probability {numbers.probability(probabilities[name])}, {verdict}", right


def _volume(case: DemoCase, sidecar: dict[str, Any]) -> tuple[str, bool]:
    """The expected volume in words, and whether it is the planted one within a quarter."""
    (expected,) = [label["expected"] for label in sidecar["volumes"]["labels"] if label["name"] == case.answer]
    planted = case.lesion.volume if case.lesion else 0.0
    return f"the network expects {_ml(expected)}", abs(expected - planted) <= planted / 4


def _spread(folder: Path, sidecar: dict[str, Any]) -> str:
    """The smallest area of a slice that holds half of the sensitivity."""
    image = _sensitivity(folder, sidecar)
    values = np.sort(np.asarray(image.dataobj, dtype=np.float64).ravel())[::-1]
    half = int(np.searchsorted(values.cumsum(), values.sum() / 2)) + 1
    pixel = float(np.prod(voxel_sizes(image.affine)[:2])) / MM2_PER_CM2
    return f"Half of the sensitivity lies in {_cm2(half * pixel)} of the {_cm2(values.size * pixel)} of the slice"


def _sensitivity(folder: Path, sidecar: dict[str, Any]) -> nib.Nifti1Image:
    (name,) = [entry["file"] for entry in sidecar["files"] if entry["kind"] == "sensitivity"]
    return nib.load(folder / name)


def _ml(volume: float) -> str:
    return f"{numbers.number(volume)}{numbers.FIRM_SPACE}ml"


def _cm2(area: float) -> str:
    return f"{numbers.number(area)}{numbers.FIRM_SPACE}cm²"


def _place(point: npt.ArrayLike) -> str:
    """Coordinates to a mm; the order is that of RAS."""
    return f"({', '.join(numbers.fixed(float(value), 0) for value in np.asarray(point))}) mm"
