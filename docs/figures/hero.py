"""The first picture of README: the demo's slice, and its sensitivity over it; and three sentences about it, all measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from monai.transforms import Resize

from monai_ifim import decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.display import numbers
from monai_ifim.display.overlay import overlay
from monai_ifim.io.installation import resolve_bundle

BUNDLE, CASE = "mednist_classification", "head_ct"
SHOWN = (-200.0, 800.0)  # Hounsfield units from black to white
BRIGHTEST = 99.5  # percentile of the sensitivity that is drawn as the largest
STRENGTH = 20.0  # of a change, root mean square over the pixels, in Hounsfield units
AIR = -500.0  # Hounsfield units below which a pixel is air
DRAWS = 20  # random changes of this strength
MARGIN = 24  # pixels of air that are left out at each side

Values = npt.NDArray[np.float64]


def draw_figures(demo: Path, output: Path) -> None:
    """Write the picture."""
    scan = _seen(demo / "input" / f"{CASE}.nii.gz")
    sensitivity = _seen(demo / BUNDLE / CASE / f"{CASE}_ifim_sensitivity.nii.gz")
    grey = np.clip((scan - SHOWN[0]) / (SHOWN[1] - SHOWN[0]), 0, 1)
    figure = Figure(figsize=(9.6, 4.8), facecolor="black")
    pictures = (grey[..., None].repeat(3, -1), overlay(grey, sensitivity / np.percentile(sensitivity, BRIGHTEST)))
    for place, picture in enumerate(pictures):
        axes = figure.add_axes((0.5 * place, 0.0, 0.5, 1.0))
        axes.imshow(picture[MARGIN:-MARGIN, MARGIN:-MARGIN])
        axes.set_axis_off()
    figure.savefig(output / "hero.png", dpi=100, facecolor="black")


def measured(demo: Path) -> dict[str, Any]:
    """The share of the sensitivity in air, and what changes of one strength do: against the leading direction, and noise."""
    bundle = load_bundle(resolve_bundle(BUNDLE))
    file = demo / "input" / f"{CASE}.nii.gz"
    image = bundle.preprocess(file).as_tensor()[None]
    d = decompose(bundle.network, image, rank=1)
    answer = int(d.probabilities[0].argmax())
    resized = Resize(image.shape[2:], mode="bilinear", anti_aliasing=True)(_seen(file)[None].copy())
    length = STRENGTH / float(resized.max() - resized.min()) * image.numel() ** 0.5  # the bundle scales this range to 0 to 1
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((DRAWS, *image.shape[1:]), generator=generator)
    noise *= length / noise.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.no_grad():
        against = bundle.network(image - length * d.eigenvectors[:, 0]).softmax(1)[0, answer]
        noisy = bundle.network(image + noise).softmax(1)
    scan, sensitivity = _seen(file), _seen(demo / BUNDLE / CASE / f"{CASE}_ifim_sensitivity.nii.gz")
    return {
        "air": float(sensitivity[scan < AIR].sum() / sensitivity.sum()),
        "answer": bundle.identity.class_names[answer],
        "probability": float(d.probabilities[0, answer]),
        "against": float(against),
        "noise": float((noisy - d.probabilities).abs().max()),
    }


def sentences(results: dict[str, Any]) -> list[str]:
    """Three sentences about the picture, from results that hold `measured` as "hero"."""
    found = results["hero"]
    strength = f"{numbers.number(STRENGTH, 2)}{numbers.FIRM_SPACE}HU"
    return [
        f"A small classifier calls this CT slice {found['answer']} with probability {numbers.probability(found['probability'])}, "
        "and it is right.",
        f"{numbers.percent(found['air'])} of its sensitivity lies in air: it has learnt the background of its training "
        "pictures, as its model card warns.",
        f"A change of {strength} (root mean square) along the direction that it is most sensitive to takes the probability to "
        f"{numbers.probability(found['against'])}; noise of {strength}, drawn {DRAWS} times, moves no probability by more than "
        f"{numbers.number(found['noise'], 2)}.",
    ]


def _seen(file: Path) -> Values:
    """A slice as it is looked at: rows downwards, the patient's right on the left."""
    image = nib.as_closest_canonical(nib.load(file))
    values: Values = image.get_fdata()
    (flat,) = [axis for axis, size in enumerate(values.shape) if size == 1]
    plane: Values = values.squeeze(flat)[::-1, ::-1].T
    return plane
