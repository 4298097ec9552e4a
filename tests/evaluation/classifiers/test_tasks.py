"""Tasks: what is drawn, read and chosen, and what of it depends on what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd
from PIL import Image

from monai_ifim.evaluation.classifiers.tasks import DatalistTask, LumpyTask, Sample, affine_of, balanced
from monai_ifim.evaluation.lumpy.images import LumpyParameters

PARAMETERS = LumpyParameters(shape=(19, 23), mean_lumps=9, lump_width=3.0, lesion_width=1.5, margin=4)


def lumpy(**changes: Any) -> LumpyTask:
    known = {"name": "lumpy", "title": "Lumpy", "parameters": PARAMETERS, "training_images": 6, "test_images": 10, "seed": 4}
    return LumpyTask(**{**known, **changes})


def test_test_images_do_not_depend_on_training_and_the_other_way_round() -> None:
    first, second = lumpy(), lumpy(training_images=8)
    for one, two in zip(first.testing(), second.testing(), strict=True):
        assert torch.equal(one.image, two.image)
        assert one.label == two.label
    assert torch.equal(first.training(0, 1, 4)[3]["image"], lumpy(test_images=3).training(0, 1, 4)[3]["image"])


def test_every_epoch_and_seed_has_images_of_its_own() -> None:
    task = lumpy()
    images = [task.training(seed, epoch, 4)[1]["image"] for seed in (0, 1) for epoch in (0, 1)] + [task.testing()[1].image]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    assert not any(torch.equal(images[i], images[j]) for i, j in pairs)


def test_images_are_standardised_by_the_ensemble() -> None:
    task = lumpy(test_images=400, parameters=LumpyParameters(shape=(31, 20), mean_lumps=30, lesion_amplitude=0.0, margin=4))
    values = torch.stack([sample.image for sample in task.testing()])
    assert float(values.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(values.std()) == pytest.approx(1.0, rel=0.05)


def test_the_first_half_of_a_training_has_the_first_amplitudes_in_turn() -> None:
    """The lesion's contrast, known from the pair of images that differ by it alone."""
    task = lumpy(first_amplitudes=(8.0, 4.0), parameters=LumpyParameters(shape=(19, 23), lesion_amplitude=1.0, margin=4))
    amplitudes = []
    for epoch in range(8):
        amplitudes.append(task.training(0, epoch, 8).images.parameters.lesion_amplitude)
    assert amplitudes == [8.0, 8.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0]


def test_a_lesion_whose_place_is_known_is_always_there() -> None:
    task = lumpy(parameters=LumpyParameters(shape=(19, 23), lesion_amplitude=50.0, lesion_width=1.5, margin=4, place=(6, 15)))
    brightest = [np.unravel_index(int(s.image[0].argmax()), (19, 23)) for s in task.testing() if s.label == 1]
    assert len(brightest) == 5
    assert set(brightest) == {(6, 15)}
    with pytest.raises(ValueError, match="one voxel index for each axis"):
        LumpyParameters(shape=(19, 23), margin=4, place=(6, 23))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(8)
    entries: dict[str, list[dict[str, Any]]] = {"training": [], "testing": []}
    for number in range(9):
        name = f"{'ab'[number % 2]}/p{number // 2}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (13, 11), dtype=np.uint8)).save(tmp_path / name)
        entries["training" if number < 4 else "testing"].append({"image": name, "label": ["cat", "dog"][number % 2]})
    (tmp_path / "list.json").write_text(json.dumps(entries))
    return tmp_path / "list.json"


def pictured(pictures: Path, augmentation: Compose | None = None) -> DatalistTask:
    steps = Compose([LoadImaged("image"), EnsureChannelFirstd("image")])
    return DatalistTask("pictures", "Pictures", str(pictures), ("cat", "dog"), steps, augmentation)


def test_a_datalist_gives_its_own_images_and_labels(pictures: Path) -> None:
    samples = pictured(pictures).testing()
    assert [(s.name, s.label) for s in samples] == [("a_p2", 0), ("b_p2", 1), ("a_p3", 0), ("b_p3", 1), ("a_p4", 0)]
    expected = np.asarray(Image.open(pictures.parent / "b" / "p3.png"), np.float32).T
    np.testing.assert_array_equal(samples[3].image[0].numpy(), expected)


def test_augmentation_depends_on_seed_epoch_and_image_alone(pictures: Path) -> None:
    task = pictured(pictures, Compose([RandFlipd("image", prob=0.5, spatial_axis=0)]))
    plain = [item["image"] for item in pictured(pictures).training(0, 0, 1)]
    epochs = [[task.training(0, epoch, 9)[i]["image"] for i in (3, 0, 2, 1)] for epoch in range(9)]
    again = [task.training(0, 5, 9)[i]["image"] for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip([again[i] for i in (3, 0, 2, 1)], epochs[5], strict=True))
    flipped = np.array([[not torch.equal(e[k], plain[i]) for k, i in enumerate((3, 0, 2, 1))] for e in epochs])
    assert 0 < flipped.sum() < flipped.size
    assert all(
        torch.equal(e[k], plain[i]) or torch.equal(e[k], plain[i].flip(1)) for e in epochs for k, i in enumerate((3, 0, 2, 1))
    )


def test_balanced_takes_the_classes_in_turn_and_every_sample_once() -> None:
    samples = [Sample(f"s{i}", torch.zeros(1, 2, 2), label) for i, label in enumerate([0] * 7 + [1] * 2 + [2] * 4)]
    chosen = balanced(samples, 8, seed=5)
    assert [s.label for s in chosen] == [0, 1, 2, 0, 1, 2, 0, 2]
    assert len({s.name for s in balanced(samples, 99, seed=5)}) == 13
    assert [s.name for s in chosen] == [s.name for s in balanced(samples, 13, seed=5)][:8]
    assert [s.name for s in chosen] != [s.name for s in balanced(samples, 8, seed=6)]


def test_affines_are_in_ras_and_pictures_have_none(pictures: Path) -> None:
    affine = torch.tensor([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)
    image = torch.zeros(1, 3, 4, 5)
    np.testing.assert_array_equal(affine_of(MetaTensor(image, affine=affine, meta={"space": "RAS"})), affine.numpy())
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine.numpy()
    np.testing.assert_array_equal(affine_of(MetaTensor(image, affine=affine, meta={"space": "LPS"})), flipped)
    assert affine_of(image) is None
    assert affine_of(MetaTensor(image, affine=torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])))) is None
    assert {sample.affine for sample in pictured(pictures).testing()} == {None}


def test_lumpy_images_have_the_affine_of_their_files(tmp_path: Path) -> None:
    import nibabel as nib

    from monai_ifim.evaluation.lumpy.images import write_image

    volume = lumpy(parameters=LumpyParameters(shape=(9, 11, 10), margin=2)).testing()[0]
    np.testing.assert_array_equal(nib.load(write_image(volume.image[0], tmp_path / "v.nii.gz")).affine, volume.affine)
    flat = lumpy().testing()[0]
    assert flat.affine is not None
    np.testing.assert_allclose(flat.affine[:2, :2], np.diag([2.0, 2.0]))
