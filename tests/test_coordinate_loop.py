"""Coordinates from file to file: a shifted, turned, brighter or blurred scan, written and read by the untouched bundle, changes
the answer as predicted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_ifim import decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.image_places import place_of_scan
from monai_ifim.coordinates import Acquisition, Family, Placement
from monai_ifim.core.coordinates import BoundFamilies
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.evaluation.demonstration import demo_volume
from monai_ifim.io.installation import resolve_bundle

COST = 2e-9  # nats of each move: of noisy images a tenth of a mm is too far, as interpolation blurs by the square of the step
LARGEST = {"mm": 0.5, "degree": 1.0, "%": 5.0, "mm^2": 0.3, "pixel": 0.5, "pixel^2": 0.3}  # moves; values: a share of their range
LARGEST_SHARE = 0.05
DEVIATION = 0.15

pytestmark = pytest.mark.soak


def test_a_moved_file_changes_the_answer_as_predicted(tmp_path: Path) -> None:
    bundle, path = load_bundle(resolve_bundle("lumpy_lesion_detection_3d")), demo_volume(tmp_path)
    scan = bundle.read(path)[bundle.image_key]
    place = place_of_scan(scan)
    families: list[Family] = [Placement(place.affine), Acquisition(affine=place.affine)]
    d = decompose_scan(bundle.network, bundle.preprocessing, scan, coordinates=families)
    found, bound = d.coordinates, BoundFamilies.of(families, d.image, [place])
    assert found is not None
    affine = nib.load(path).affine
    predicted_class, checked = int(d.probabilities[0].argmax()), 0
    for number, unit in enumerate(found.units):
        largest = LARGEST.get(unit) or LARGEST_SHARE * float(d.image.max() - d.image.min())
        nats = float(found.nats_per_unit[0, number])
        amount = min(largest, (COST / nats) ** 0.5 if nats > 0 else largest)
        expected = nats * amount**2
        if expected < COST / 10:
            continue  # nothing that could be told from rounding
        changes = []
        for sign in (1, -1):
            values = bound.moved(number, sign * amount)[0, 0].numpy().astype(np.float32)
            nib.save(nib.Nifti1Image(values, affine), tmp_path / "moved.nii.gz")
            with torch.no_grad():
                logits = bundle.network(bundle.preprocess(tmp_path / "moved.nii.gz").as_tensor()[None])
            changes.append(
                (float(CategoricalHead().divergence(d.logits, logits)), logits.double().log_softmax(1)[0, predicted_class])
            )
        measured = sum(divergence for divergence, _ in changes) / 2
        assert measured == pytest.approx(expected, rel=DEVIATION), found.names[number]
        slope = float(changes[0][1] - changes[1][1]) / (2 * amount)
        assert slope == pytest.approx(float(found.gradient[0, predicted_class, number]), rel=DEVIATION), found.names[number]
        checked += 1
    assert checked >= 5
