"""Bundles whose preprocessing is of another shape than usual: each case is right, or refused with a cure that works."""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from monai_ifim import decompose
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.check.network import check_bundle
from monai_ifim.adapt.random_steps import RandomStepWarning
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.core import IFIMError
from monai_ifim.core.settings import Settings
from monai_ifim.io import InputError, read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.repetition import find_image, read_recorded_case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

MakeBundle = Callable[..., Path]
SHAPE = (11, 9, 8)
SPACES = ("native", "network", "scanner")
BOTH = ["image", "label"]


def step(target: str, keys: Any = "image", **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": keys, **arguments}


READ = [step("LoadImaged"), step("EnsureChannelFirstd")]
READ_BOTH = [step("LoadImaged", BOTH), step("EnsureChannelFirstd", BOTH)]
SIZE = step("Resized", spatial_size=[9, 8, 7])
AREA = step("Resized", spatial_size=[9, 8, 7], mode="area")
ARRAY = [
    {"_target_": "LoadImage"},
    {"_target_": "EnsureChannelFirst"},
    {"_target_": "Resize", "spatial_size": [9, 8, 7]},
]


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: Any) -> Path:
    """A small volume."""
    return write_scan(tmp_path / "in" / "scan.nii.gz", SHAPE, oblique)


@pytest.fixture
def datalist(scan: Path, oblique: Any) -> Path:
    """The volume with a label of its size, in a datalist beside it."""
    generator = np.random.default_rng(5)
    label = generator.integers(0, 2, SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(label, oblique), scan.parent / "label.nii.gz")
    path = scan.parent / "list.json"
    path.write_text(json.dumps({"testing": [{"image": "scan.nii.gz", "label": "label.nii.gz", "site": "here"}]}))
    return path


def run(bundle: Bundle, source: Path, output: Path, space: Any = "network", **further: Any) -> CaseRow:
    settings = RunSettings(output, CaseSettings("categorical", energy=1.0, space=space), **further)
    [row] = run_cases(bundle, find_cases([source]), settings, lambda row: None)
    return row


def eigenvalues(bundle: Bundle, source: Path, output: Path, space: Any = "network") -> list[float]:
    row = run(bundle, source, output, space)
    assert row.status == "done", row.reason
    return list(sidecar(output, row)["eigenvalues"])


def sidecar(output: Path, row: CaseRow) -> dict[str, Any]:
    return read_sidecar(output / row.case / f"{row.case}_ifim.json")


RANDOM = {
    "rotated": step("RandRotate90d", prob=1.0, max_k=3),
    "flipped": step("RandFlipd", prob=0.5, spatial_axis=0),
    "two of three": {
        "_target_": "SomeOf",
        "transforms": [step("RandFlipd", prob=0.9), step("RandGaussianNoised", prob=0.9), step("RandRotated", prob=0.9)],
        "num_transforms": 2,
    },
    "in a Compose": {"_target_": "Compose", "map_items": 2, "transforms": [step("RandGaussianNoised", prob=1.0)]},
    "with a label": step("RandFlipd", BOTH, prob=0.5, allow_missing_keys=True),
}


@pytest.mark.parametrize(
    ("name", "space"), [*((name, "network") for name in RANDOM), ("rotated", "native"), ("rotated", "scanner")]
)
def test_an_augmentation_is_left_out_with_a_warning_and_is_on_record(
    name: str, space: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path
) -> None:
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=[*READ, SIZE]))
    root = make_bundle(tmp_path / "augmented", steps=[*READ, RANDOM[name], SIZE])
    with pytest.warns(RandomStepWarning, match="in its preprocessing left out, because random"):
        augmented = load_bundle(root)
    expected = eigenvalues(plain, scan, tmp_path / "plain out", space)
    row = run(augmented, scan, tmp_path / "out", space)
    found = sidecar(tmp_path / "out", row)
    assert found["eigenvalues"] == pytest.approx(expected, rel=1e-5)
    assert found["left_out"] == list(augmented.steps.left_out) != []
    report = check_bundle(augmented, None, Settings("categorical"))
    (finding,) = (each for each in report.findings if each.name == "preprocessing")
    assert finding.passed
    assert augmented.steps.left_out[0] in finding.detail


def test_the_command_line_says_what_was_left_out(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "augmented", steps=[*READ, step("RandFlipd", prob=0.5), SIZE])
    result = CliRunner().invoke(app, ["check", "--bundle", str(root), "--head", "categorical"])
    assert result.exit_code == 0
    assert "left out, because random: RandFlipd (prob 0.5)" in result.output
    with pytest.warns(RandomStepWarning, match=r"RandFlipd \(prob 0.5\)"):
        result = CliRunner().invoke(app, ["decompose", str(scan), "--bundle", str(root), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "still",
    [step("RandFlipd", prob=0.0), step("Lambdad", func="$lambda image: image * 1.0")],
    ids=["prob 0", "not random"],
)
def test_nothing_is_said_of_steps_without_chance(still: Any, make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomStepWarning)
        bundle = load_bundle(make_bundle(tmp_path / "still", steps=[*READ, still, SIZE]))
    assert sidecar(tmp_path / "out", run(bundle, scan, tmp_path / "out"))["left_out"] == []
    assert bundle.steps.describe() == []


def test_a_flip_that_is_always_drawn_is_kept_and_named(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    with pytest.warns(RandomStepWarning, match=r"RandFlipd \(prob 1\) in its preprocessing kept, because it does the same"):
        drawn = load_bundle(make_bundle(tmp_path / "drawn", steps=[*READ, step("RandFlipd", prob=1.0, spatial_axis=1), SIZE]))
    flipped = load_bundle(make_bundle(tmp_path / "flipped", steps=[*READ, step("Flipd", spatial_axis=1), SIZE]))
    assert torch.equal(drawn.preprocess(scan).as_tensor(), flipped.preprocess(scan).as_tensor())
    expected = eigenvalues(flipped, scan, tmp_path / "flipped out", "native")
    assert eigenvalues(drawn, scan, tmp_path / "out", "native") == pytest.approx(expected)


def test_steps_of_a_label_that_is_not_read_do_not_count(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    of_label = [
        step("RandSpatialCropd", "label", roi_size=[5, 5, 5]),
        step("monai.apps.nuclick.transforms.FlattenLabeld", "label"),
    ]
    bundle = load_bundle(make_bundle(tmp_path / "labelled", steps=[*READ_BOTH, *of_label, SIZE]))
    assert bundle.steps.left_out == ()
    assert run(bundle, scan, tmp_path / "out").status == "done"


def test_several_images_of_one_are_refused(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    halves = "$lambda data: [data, data]"
    row = run(load_bundle(make_bundle(tmp_path / "halves", steps=[*READ, halves])), scan, tmp_path / "out")
    assert "makes 2 images of one: let it make one" in row.reason


def test_a_random_crop_is_refused_and_its_cure_runs(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bundle crop: RandSpatialCropd .*, such as CenterSpatialCropd"):
        load_bundle(make_bundle(tmp_path / "crop", steps=[*READ, step("RandSpatialCropd", roi_size=[64, 64, 64]), SIZE]))
    cured = load_bundle(make_bundle(tmp_path / "cured", steps=[*READ, step("CenterSpatialCropd", roi_size=[7, 7, 7]), SIZE]))
    assert run(cured, scan, tmp_path / "out").status == "done"


@pytest.mark.parametrize("space", SPACES)
def test_chance_in_a_function_is_noticed_and_named(space: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    noisy = step("Lambdad", func="$lambda image: image + torch.randn_like(image)")
    bundle = load_bundle(make_bundle(tmp_path / "noisy", steps=[*READ, step("ScaleIntensityd"), noisy, SIZE]))
    row = run(bundle, scan, tmp_path / "out", space)
    assert row.status == "failed"
    assert "Lambdad in the preprocessing gives another image each time" in row.reason


def test_somebodys_classes_are_treated_alike(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "own", steps=[*READ, step("their_augmentations.Shaken"), SIZE])
    code = """
        from monai.transforms import MapTransform, Randomizable, RandomizableTransform

        class Shaken(RandomizableTransform, MapTransform):
            def __init__(self, keys, prob=1.0):
                MapTransform.__init__(self, keys)
                RandomizableTransform.__init__(self, prob)

            def __call__(self, data):
                self.randomize(None)
                if not self._do_transform:
                    return data
                return {**data, **{key: data[key] + self.R.normal() for key in self.keys}}

        class Scaled(Randomizable, MapTransform):
            def __call__(self, data):
                return {**data, **{key: data[key] * self.R.uniform(1, 2) for key in self.keys}}
        """
    (root / "their_augmentations.py").write_text(textwrap.dedent(code))
    with pytest.warns(RandomStepWarning, match=r"Shaken \(prob 1\)"):
        bundle = load_bundle(root)
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=[*READ, SIZE]))
    assert torch.equal(bundle.preprocess(scan).as_tensor(), plain.preprocess(scan).as_tensor())
    root = make_bundle(tmp_path / "other", steps=[*READ, step("their_augmentations.Scaled"), SIZE])
    with pytest.raises(InputError, match="Scaled in the preprocessing is random and decides"):
        load_bundle(root)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_array_transforms_are_taken_as_dictionary_ones(
    ending: str, space: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path, make_network: Callable[..., Any]
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "array", steps=ARRAY, config=f"inference.{ending}"))
    twin = load_bundle(make_bundle(tmp_path / "twin", steps=[*READ, SIZE]))
    expected = eigenvalues(twin, scan, tmp_path / "twin out", space)
    assert eigenvalues(bundle, scan, tmp_path / "out", space) == pytest.approx(expected, rel=1e-6)
    image = Compose([LoadImage(), EnsureChannelFirst(), Resize((9, 8, 7))])(str(scan))
    torch.testing.assert_close(bundle.preprocess(scan).as_tensor(), image.as_tensor())
    if space == "network":
        alone = decompose(make_network(), image.as_tensor()[None], head="categorical", energy=1.0)
        assert expected == pytest.approx(alone.eigenvalues[0].tolist(), rel=1e-5)


def test_array_transforms_may_be_random_or_return_metadata(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    steps = [{"_target_": "LoadImage", "image_only": False}, *ARRAY[1:], {"_target_": "RandGaussianNoise", "prob": 0.7}]
    with pytest.warns(RandomStepWarning, match="RandGaussianNoise"):
        bundle = load_bundle(make_bundle(tmp_path / "array", steps=steps))
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=ARRAY))
    assert torch.equal(bundle.preprocess(scan).as_tensor(), plain.preprocess(scan).as_tensor())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "steps",
    [
        [*READ_BOTH, step("Resized", ["label", "image"], spatial_size=[9, 8, 7], mode=["nearest", "area"])],
        [step("LoadImaged", "label"), *READ_BOTH, step("DeleteItemsd", "label"), AREA],
        [step("LoadImaged", BOTH, image_only=False), READ_BOTH[1], step("SelectItemsd", BOTH),
         step("Resized", BOTH, spatial_size=[9, 8, 7], mode="area"), step("CopyItemsd", BOTH, names=["i", "l"])],
        [step("LoadImaged", BOTH, allow_missing_keys=True, ensure_channel_first=True),
         step("Resized", BOTH, spatial_size=[9, 8, 7], mode="area", allow_missing_keys=True)],
    ],
    ids=["modes", "deleted", "selected", "allowed to be missing"],
)  # fmt: skip
def test_a_label_that_does_not_count_is_not_read(
    steps: Any, space: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "labelled", steps=steps))
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=[*READ, AREA]))
    assert bundle.steps.unread == ("label",)
    assert "not read, because the network's input does not depend on it: label" in bundle.steps.describe()
    expected = eigenvalues(plain, scan, tmp_path / "plain out", space)
    assert eigenvalues(bundle, scan, tmp_path / "out", space) == pytest.approx(expected, rel=1e-6)


JOINED = [*READ_BOTH, step("ConcatItemsd", BOTH, name="image"), SIZE]
GUIDED = [
    step("LoadImaged", BOTH, dtype="uint8", image_only=False),
    READ_BOTH[1],
    step("ScaleIntensityRanged", a_min=0.0, a_max=255.0, b_min=-1.0, b_max=1.0),
    step("monai.apps.nuclick.transforms.AddLabelAsGuidanced", source="label"),
]  # as pathology_nuclei_classification of MONAI's model zoo


def test_a_label_that_counts_is_taken_from_the_datalist(
    make_bundle: MakeBundle, scan: Path, datalist: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "joined", channels=2, steps=JOINED))
    missing = run(bundle, scan, tmp_path / "out")
    assert missing.status == "failed"
    assert "made of 'label' too (ConcatItemsd in the preprocessing" in missing.reason
    assert 'in a datalist (.json), {"image": "scan.nii.gz", "label": ...}' in missing.reason
    row = run(bundle, datalist, tmp_path / "out", "native")
    found = sidecar(tmp_path / "out", row)
    label = scan.parent / "label.nii.gz"
    image = bundle.preprocessing({"image": str(scan), "label": str(label)})["image"].as_tensor()
    assert image[1].unique().numel() > 1
    alone = decompose(bundle.network, image[None], head="categorical", energy=1.0)
    assert found["eigenvalues"] == pytest.approx(alone.eigenvalues[0].tolist(), rel=1e-5)
    assert list(found["input"]["beside"]) == ["label"]
    assert found["input"]["beside"]["label"]["file"] == "label.nii.gz"


def test_a_picture_with_a_mask_as_guidance(make_bundle: MakeBundle, tmp_path: Path) -> None:
    generator, folder = np.random.default_rng(7), tmp_path / "in"
    (folder / "Labels").mkdir(parents=True)
    Image.fromarray(generator.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(folder / "nuclei.png")
    mask = generator.integers(0, 2, (12, 10), dtype=np.uint8)
    Image.fromarray(mask).save(folder / "Labels" / "nuclei.png")
    (folder / "list.json").write_text(json.dumps([{"image": "nuclei.png", "label": "Labels/nuclei.png"}]))
    bundle = load_bundle(make_bundle(tmp_path / "guided", dims=2, channels=4, steps=GUIDED))
    assert bundle.steps.beside == {"label": "AddLabelAsGuidanced"}
    assert "made of 'label' too (AddLabelAsGuidanced in" in run(bundle, folder / "nuclei.png", tmp_path / "out").reason
    for space in ("native", "network"):
        row = run(bundle, folder / "list.json", tmp_path / space, space)
        assert row.status == "done", row.reason
    seen = bundle.preprocess(folder / "nuclei.png", {"label": folder / "Labels" / "nuclei.png"})
    assert torch.equal(seen[3].as_tensor(), torch.from_numpy(mask.T).float())


def test_another_label_is_another_case(make_bundle: MakeBundle, datalist: Path, oblique: Any, tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "joined", channels=2, steps=JOINED))
    assert run(bundle, datalist, tmp_path / "out").status == "done"
    assert run(bundle, datalist, tmp_path / "out").status == "kept"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, dtype=np.float32), oblique), datalist.parent / "label.nii.gz")
    assert run(bundle, datalist, tmp_path / "out").status == "done"
    _, recorded = read_recorded_case(tmp_path / "out" / "scan" / "scan_ifim.json")
    with pytest.raises(InputError, match="made of 'label' besides its image, .*decompose the datalist again"):
        find_image(recorded)


def test_a_label_that_counts_has_no_scanner_space(make_bundle: MakeBundle, datalist: Path, tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "joined", channels=2, steps=JOINED))
    with pytest.raises(IFIMError, match="made of 'label' too .ConcatItemsd in the preprocessing., .*--space native"):
        run(bundle, datalist, tmp_path / "out", "scanner")
    report = check_bundle(bundle, None, Settings("categorical"))
    (finding,) = (each for each in report.findings if each.name == "preprocessing")
    assert "needs 'label' beside the image (ConcatItemsd): give it in a datalist" in finding.detail
    with pytest.raises(InputError, match="check it without an image"):
        check_bundle(bundle, datalist.parent / "scan.nii.gz", Settings("categorical"))


def test_an_entry_that_a_function_looks_for_is_named(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    dosed = "$lambda data: {**data, 'image': data['image'] * data['dose']}"
    bundle = load_bundle(make_bundle(tmp_path / "dosed", steps=[*READ, dosed, SIZE]))
    row = run(bundle, scan, tmp_path / "out")
    assert "looks for an entry that the image's data lacks ('dose'): give it beside the image in a datalist" in row.reason
    path = scan.parent / "list.json"
    path.write_text(json.dumps([{"image": "scan.nii.gz", "dose": 2.0}]))
    halves = load_bundle(
        make_bundle(tmp_path / "doubled", steps=[*READ, step("Lambdad", func="$lambda image: image * 2.0"), SIZE])
    )
    expected = eigenvalues(halves, scan, tmp_path / "expected")
    assert eigenvalues(bundle, path, tmp_path / "out") == pytest.approx(expected, rel=1e-6)
    path.write_text(json.dumps([{"image": "scan.nii.gz", "dose": 3.0}]))
    assert run(bundle, path, tmp_path / "out").status == "done"  # another dose: the case is made again


@pytest.mark.parametrize("entry", ["img", "image_file"])
def test_an_image_that_is_loaded_under_another_name(entry: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    steps = [step("LoadImaged", entry), step("EnsureChannelFirstd", entry), step("CopyItemsd", entry, names="image"), SIZE]
    bundle = load_bundle(make_bundle(tmp_path / "copied", steps=steps))
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=[*READ, SIZE]))
    assert (bundle.file_key, bundle.image_key) == (entry, "image")
    expected = eigenvalues(plain, scan, tmp_path / "plain out")
    assert eigenvalues(bundle, scan, tmp_path / "out") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("steps", "cured", "said"),
    [
        ([READ[0], step("ScaleIntensityd"), SIZE], [*READ, SIZE], r"add EnsureChannelFirstd \(keys: image\)"),
        ([READ[0]], [*READ, SIZE], r"add EnsureChannelFirstd \(keys: image\) after LoadImaged"),
        ([ARRAY[0], {"_target_": "ScaleIntensity"}], ARRAY, "add EnsureChannelFirst after LoadImage in"),
    ],
    ids=["fails", "is read only", "array"],
)  # fmt: skip
def test_a_missing_channel_axis_is_named_and_the_cure_runs(
    steps: Any, cured: Any, said: str, space: str, make_bundle: MakeBundle, scan: Path, tmp_path: Path
) -> None:
    row = run(load_bundle(make_bundle(tmp_path / "flat", steps=steps)), scan, tmp_path / "out", space)
    assert row.status == "failed"
    assert re.search(said, row.reason), row.reason
    assert run(load_bundle(make_bundle(tmp_path / "cured", steps=cured)), scan, tmp_path / "out", space).status == "done"


def test_a_channel_axis_may_be_made_in_other_ways(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    ways = {
        "index": [READ[0], step("Lambdad", func="$lambda image: image[None]"), SIZE],
        "loader": [step("LoadImaged", ensure_channel_first=True), SIZE],
        "later": [READ[0], step("ScaleIntensityd"), READ[1], SIZE],
    }
    for name, steps in ways.items():
        row = run(load_bundle(make_bundle(tmp_path / name, steps=steps)), scan, tmp_path / "out" / name)
        assert row.status == "done", (name, row.reason)


def test_a_missing_channel_axis_is_suspected_where_the_metadata_says_nothing(
    make_bundle: MakeBundle, scan: Path, tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "untold", steps=[READ[0]])
    (root / "configs" / "metadata.json").unlink()
    row = run(load_bundle(root), scan, tmp_path / "out")
    assert "the network fails on this image" in row.reason
    assert "Its preprocessing has no EnsureChannelFirst(d)" in row.reason


def test_a_volume_for_a_2d_network_is_refused_and_both_cures_run(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    size = step("Resized", spatial_size=[12, 10])
    bundle = load_bundle(make_bundle(tmp_path / "flat", dims=2, steps=[*READ, size]))
    for space in SPACES:
        row = run(bundle, scan, tmp_path / "out", space)
        assert (
            "an image of 3 dimensions (11, 9, 8), but the network of bundle flat takes 2: give the file of one slice"
            in row.reason
        )
    (tmp_path / "slice").mkdir()
    slice_ = Path(get_testdata_file("CT_small.dcm"))
    assert run(bundle, slice_, tmp_path / "slice" / "out", "native").status == "done"
    plane = step("SpatialCropd", roi_slices="$[slice(None), slice(None), slice(3, 4)]")
    cured = load_bundle(make_bundle(tmp_path / "plane", dims=2, steps=[*READ, plane, step("SqueezeDimd", dim=-1), size]))
    assert run(cured, scan, tmp_path / "plane out", "scanner").status == "done"
    for space in ("native", "network"):
        row = run(cured, scan, tmp_path / "plane out" / space, space)
        assert row.reason.endswith("choose --space scanner.")


def test_a_failing_preprocessing_is_not_blamed_on_the_channels(make_bundle: MakeBundle, scan: Path, tmp_path: Path) -> None:
    steps = [*READ, step("RepeatChanneld", repeats=2), step("Lambdad", func="$lambda image: image / 0 if 1 // 0 else 0")]
    row = run(load_bundle(make_bundle(tmp_path / "broken", channels=2, steps=steps)), scan, tmp_path / "out")
    assert "the preprocessing of bundle broken fails" in row.reason
    assert "1 channel" not in row.reason


def test_one_image_in_a_datalist_and_on_the_command_line_is_one_case(scan: Path, datalist: Path) -> None:
    [case] = find_cases([scan, datalist, scan])
    assert dict(case.source.beside) == {"label": datalist.parent / "label.nii.gz", "site": "here"}
    assert case.of_entries({"label"}).source.beside == (("label", datalist.parent / "label.nii.gz"),)
    assert case.of_entries(()).source.beside == ()
