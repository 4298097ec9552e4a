"""`SaveIFIM` and its twin: what lies on disk, judged by nibabel and ITK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    GridDistortiond,
    InvertibleTransform,
    Lambdad,
    LoadImage,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resize,
    Resized,
    SpatialCropd,
    SqueezeDimd,
    ToTensord,
    Transposed,
)
from PIL import Image
from pydicom.data import get_testdata_file
from torch import nn

from monai_ifim import IFIMDecompose, IFIMDecomposed, IFIMInferer, SaveIFIM, SaveIFIMd, decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.native import network_affine
from monai_ifim.io import GeometryError, InputError, OutputError, Source

Array = npt.NDArray[Any]
ReadAlike = Callable[[Path], Any]
MakeNetwork = Callable[..., nn.Module]


def read_case(folder: Path, read_alike: ReadAlike) -> dict[str, Any]:
    """Every volume of a case by what follows _ifim_ in its name, each read by nibabel and ITK alike."""
    return {path.name.split("_ifim_")[1][:-7]: read_alike(path) for path in sorted(folder.glob("*.nii.gz"))}


def assert_split(volumes: dict[str, Any], suffix: str = "") -> None:
    whole = volumes[f"input{suffix}"].values.astype(np.float64)
    total = volumes[f"high{suffix}"].values.astype(np.float64) + volumes[f"low{suffix}"].values
    np.testing.assert_allclose(total, whole, rtol=0, atol=1e-5 * np.ptp(whole))
    assert np.abs(volumes[f"high{suffix}"].values).max() > 1e-3 * np.ptp(whole)


@pytest.fixture
def network(make_network: MakeNetwork) -> nn.Module:
    return make_network()


@pytest.fixture
def written(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module, read_alike: ReadAlike
) -> Callable[[str], dict[str, Any]]:
    """The files of one case in a space, made by a dictionary chain."""

    def write(space: str) -> dict[str, Any]:
        pre = steps()
        save = SaveIFIMd("image", tmp_path / "out", space=space, preprocessing=pre)
        Compose([pre, IFIMDecomposed("image", network, rank=2), save])({"image": str(scan)})
        return read_case(tmp_path / "out" / "scan", read_alike)

    return write


@pytest.mark.parametrize("space", ["native", "network"])
def test_input_is_high_plus_low_in_every_voxel(space: str, written: Callable[[str], dict[str, Any]]) -> None:
    volumes = written(space)
    scan = {"source"} if space == "native" else set()
    assert set(volumes) == {"input", "high", "low", "sensitivity", "eigenvector-01", "eigenvector-02"} | scan
    assert_split(volumes)


def test_native_files_lie_on_the_scan(
    written: Callable[[str], dict[str, Any]], scan: Path, read_itk: ReadAlike, oblique: Array
) -> None:
    source, theirs = nib.load(scan), read_itk(scan)
    for volume in written("native").values():
        assert volume.values.shape == source.shape
        np.testing.assert_allclose(volume.affine, source.affine, rtol=0, atol=1e-4)
        np.testing.assert_allclose(volume.corners, theirs.corners, rtol=0, atol=1e-3)


def test_native_input_shows_the_scans_values_where_the_scan_has_them(
    written: Callable[[str], dict[str, Any]], scan: Path
) -> None:
    inside = (slice(4, -4),) * 3
    values = nib.load(scan).get_fdata()
    np.testing.assert_allclose(written("native")["input"].values[inside], values[inside], rtol=0, atol=0.02 * np.ptp(values))


def test_network_files_are_what_the_network_saw_where_it_saw_it(
    written: Callable[[str], dict[str, Any]], data: dict[str, MetaTensor]
) -> None:
    volumes = written("network")
    np.testing.assert_array_equal(volumes["input"].values, data["image"].numpy()[0])
    np.testing.assert_allclose(volumes["high"].affine, data["image"].affine.numpy(), rtol=0, atol=1e-4)
    assert float(np.linalg.norm(volumes["eigenvector-01"].values)) == pytest.approx(1, abs=1e-5)
    cosine = np.vdot(volumes["eigenvector-01"].values, volumes["eigenvector-02"].values)
    assert float(cosine) == pytest.approx(0, abs=1e-5)


def test_an_array_compose_gives_the_same_files_as_a_dictionary_compose(
    written: Callable[[str], dict[str, Any]],
    scan: Path,
    tmp_path: Path,
    array_steps: Compose,
    network: nn.Module,
    read_alike: ReadAlike,
) -> None:
    expected = written("native")
    image = array_steps(str(scan))
    SaveIFIM(tmp_path / "array", preprocessing=array_steps)(image, IFIMDecompose(network, rank=2)(image))
    found = read_case(tmp_path / "array" / "scan", read_alike)
    assert set(found) == set(expected)
    for name, volume in expected.items():
        np.testing.assert_allclose(found[name].values, volume.values, rtol=0, atol=1e-6 * np.abs(volume.values).max())
        np.testing.assert_allclose(found[name].affine, volume.affine, rtol=0, atol=1e-4)


def test_the_inferers_answer_is_saved_under_its_key(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module, read_alike: ReadAlike
) -> None:
    pre = steps()
    image = pre({"image": str(scan)})["image"]
    answer = {name: values[0] for name, values in IFIMInferer(rank=1)(image[None], network).items()}
    before = set(answer)
    result = SaveIFIMd("pred", tmp_path / "out", preprocessing=pre)({"image": image, "pred": answer})
    assert set(answer) == before
    assert result["pred"] is answer
    assert_split(read_case(tmp_path / "out" / "scan", read_alike))


def test_a_batch_of_two_is_saved_image_by_image(
    tmp_path: Path, write_scan: Callable[..., Path], steps: Callable[..., Compose], network: nn.Module,
    oblique: Array, read_alike: ReadAlike,
) -> None:  # fmt: skip
    pre = steps()
    paths = {n: write_scan(tmp_path / f"{n}.nii.gz", shape, oblique) for n, shape in (("a", (9, 12, 7)), ("b", (8, 6, 11)))}
    loader = DataLoader(Dataset([{"image": str(path)} for path in paths.values()], pre), batch_size=2)
    batch = next(iter(loader))
    batch["pred"] = IFIMInferer()(batch["image"], network)
    for item in decollate_batch(batch):
        SaveIFIMd("pred", tmp_path / "out", preprocessing=pre)(item)
    for name, path in paths.items():
        volumes = read_case(tmp_path / "out" / name, read_alike)
        assert volumes["high"].values.shape == nib.load(path).shape
        assert_split(volumes)


def test_a_second_channel_has_files_of_its_own(
    tmp_path: Path, write_scan: Callable[..., Path], make_network: MakeNetwork, oblique: Array, read_alike: ReadAlike
) -> None:
    path = write_scan(tmp_path / "two.nii.gz", (9, 7, 11, 2), oblique)
    pre = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="PSR", labels=None),
        ]
    )
    chain = [pre, IFIMDecomposed("image", make_network(channels=2)), SaveIFIMd("image", tmp_path, preprocessing=pre)]
    Compose(chain)({"image": str(path)})
    volumes = read_case(tmp_path / "two", read_alike)
    source = nib.load(path).get_fdata()
    for channel, suffix in enumerate(("", "_channel-02")):
        np.testing.assert_allclose(volumes[f"input{suffix}"].values, source[..., channel], rtol=0, atol=1e-6)
        assert_split(volumes, suffix)
        assert f"eigenvector-01{suffix}" in volumes
        assert f"sensitivity{suffix}" in volumes


def test_different_inputs_of_one_name_do_not_overwrite_each_other_and_the_same_one_does(
    tmp_path: Path, write_scan: Callable[..., Path], steps: Callable[..., Compose], network: nn.Module, oblique: Array
) -> None:
    pre = steps()
    paths = [write_scan(tmp_path / f"{i}" / "scan.nii.gz", (7, 8, 9), oblique, shift=float(i)) for i in range(3)]
    chain = Compose([pre, IFIMDecomposed("image", network), SaveIFIMd("image", tmp_path / "out", preprocessing=pre)])
    for path in [*paths, paths[0], paths[2]]:
        chain({"image": str(path)})
    found = {}
    for sidecar in (tmp_path / "out").glob("*/*_ifim.json"):
        found[sidecar.parent.name] = json.loads(sidecar.read_text())["input"]["sha256"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert found == {"scan": digests[0]} | {f"scan-{digest[:8]}": digest for digest in digests[1:]}


@pytest.mark.parametrize("damaged", ["{", "[]", '{"schema": "1.1", "input": {}}'])
def test_a_damaged_sidecar_holds_its_name_where_nothing_says_whose_it_is(
    damaged: str, scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre = steps()
    chain = Compose([pre, IFIMDecomposed("image", network), SaveIFIMd("image", tmp_path / "out", preprocessing=pre)])
    (tmp_path / "out" / "scan").mkdir(parents=True)
    (tmp_path / "out" / "scan" / "scan_ifim.json").write_text(damaged)
    digest = hashlib.sha256(scan.read_bytes()).hexdigest()
    for _ in range(2):
        chain({"image": str(scan)})
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"scan", f"scan-{digest[:8]}"}
        assert (tmp_path / "out" / "scan" / "scan_ifim.json").read_text() == damaged
    sidecar = json.loads((tmp_path / "out" / f"scan-{digest[:8]}" / f"scan-{digest[:8]}_ifim.json").read_text())
    assert sidecar["input"]["sha256"] == digest


def test_a_batch_s_list_of_one_file_names_the_case(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre = steps()
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    data["image"].meta["filename_or_obj"] = [str(scan)]
    SaveIFIMd("image", tmp_path / "out", preprocessing=pre)(data)
    assert json.loads((tmp_path / "out" / "scan" / "scan_ifim.json").read_text())["input"]["file"] == "scan.nii.gz"


def test_a_second_run_with_less_to_save_leaves_no_files_of_the_first(
    data: dict[str, MetaTensor], tmp_path: Path, network: nn.Module
) -> None:
    for contents in (("high", "low", "eigenvectors"), ("low",)):
        SaveIFIM(tmp_path / "out", space="network", contents=contents)(data["image"], IFIMDecompose(network)(data["image"]))
    assert {path.name for path in (tmp_path / "out" / "scan").glob("*_ifim_*")} == {
        "scan_ifim_input.nii.gz",
        "scan_ifim_low.nii.gz",
    }


def test_an_image_that_the_network_ignores_has_no_component_and_low_is_all_of_it(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], read_alike: ReadAlike
) -> None:
    pre = steps()
    image = pre({"image": str(scan)})["image"]
    components = IFIMDecompose(lambda x: torch.tensor([[0.5, 2.0, 1.0]]).expand(x.shape[0], -1))(image)
    for space in ("native", "network"):
        SaveIFIM(tmp_path / space, space=space, preprocessing=pre)(image, components)
        volumes = read_case(tmp_path / space / "scan", read_alike)
        assert set(volumes) - {"source"} == {"input", "high", "low", "sensitivity"}
        assert not volumes["high"].values.any()
        np.testing.assert_array_equal(volumes["low"].values, volumes["input"].values)


def untracked_crop() -> Lambdad:
    return Lambdad("image", func=lambda image: image[:, 2:])


def distortion() -> GridDistortiond:
    return GridDistortiond("image", num_cells=3, distort_steps=[[1.3, 0.8, 1.0, 1.0]] * 3, mode="bilinear")


@pytest.mark.parametrize("step", [untracked_crop, distortion])
def test_a_spatial_transform_without_inverse_is_refused_naming_the_network_space(
    step: Callable[[], Any], scan: Path, tmp_path: Path, network: nn.Module
) -> None:
    pre = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), step(), Resized("image", spatial_size=(8, 9, 10))])
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    with pytest.raises(GeometryError, match="space='network'"):
        SaveIFIMd("image", tmp_path / "out", preprocessing=pre)(data)
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    SaveIFIMd("image", tmp_path / "out", space="network", preprocessing=pre)(data)
    assert (tmp_path / "out" / "scan" / "scan_ifim.json").is_file()


def shifted(image: MetaTensor) -> MetaTensor:
    """Moved in the world without a trace."""
    affine = image.affine.clone()
    affine[0, 3] += 5.0
    return MetaTensor(image.as_tensor(), affine=affine, meta=image.meta, applied_operations=image.applied_operations)


class OneWay(MapTransform, InvertibleTransform):
    """Leaves a trace and knows no way back."""

    def __call__(self, data: Any) -> dict[Any, Any]:
        for key in self.key_iterator(dict(data)):
            self.push_transform(data[key])
        return dict(data)

    def inverse(self, data: Any) -> Any:
        raise NotImplementedError("no way back")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Lambdad("image", shifted), "gives another position in the world than the input's"),
        (OneWay("image"), r"cannot be inverted \(.*no way back.*\)"),
        (ToTensord("image"), "ToTensord in the preprocessing removes MONAI's trace .*use EnsureType"),
    ],
    ids=["another place", "no way back", "no trace"],
)
def test_a_preprocessing_that_does_not_lead_back_is_refused_saying_why(
    step: Any, words: str, scan: Path, tmp_path: Path, network: nn.Module
) -> None:
    pre = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), step, Resized("image", spatial_size=(8, 9, 10))])
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    with pytest.raises(GeometryError, match=rf"{words}.*space='network'"):
        SaveIFIMd("image", tmp_path / "out", preprocessing=pre)(data)


def test_an_image_that_was_only_read_needs_no_preprocessing_to_lead_back(
    scan: Path, tmp_path: Path, network: nn.Module, read_alike: ReadAlike
) -> None:
    image = Compose([LoadImage(image_only=True), EnsureChannelFirst()])(str(scan))
    SaveIFIM(tmp_path / "out")(image, IFIMDecompose(network)(image))
    volumes = read_case(tmp_path / "out" / "scan", read_alike)
    np.testing.assert_allclose(volumes["input"].values, nib.load(scan).get_fdata(), atol=1e-5)
    assert_split(volumes)


def test_a_scan_that_is_gone_since_is_left_out(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre = steps()
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    source, copy = Source(scan), tmp_path / "copy.nii.gz"
    copy.write_bytes(scan.read_bytes())
    data["image"].meta["filename_or_obj"] = str(copy)
    copy.write_bytes(b"no NIfTI any more")
    components = {name: data[name] for name in data if name.startswith("ifim")}
    sidecar = SaveIFIM(tmp_path / "out", preprocessing=pre)(data["image"], components, source=source)
    assert all(file["kind"] != "source" for file in json.loads(sidecar.read_text())["files"])


def test_another_compose_than_the_one_that_made_the_image_is_refused(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre, other = steps(), steps()  # both alive: no id is given twice
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    with pytest.raises(GeometryError, match="pass the same object"):
        SaveIFIMd("image", tmp_path, preprocessing=other)(data)


def test_another_compose_is_told_apart_where_python_gives_it_the_ids_of_the_one_that_is_gone(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre, other = steps(), Compose([EnsureChannelFirstd("image"), SqueezeDimd("image", dim=0)])
    data = IFIMDecomposed("image", network)(pre({"image": str(scan)}))
    data["image"].applied_operations[-1]["id"] = id(other.transforms[1].converter)
    with pytest.raises(GeometryError, match="there is a SqueezeDim now.*pass the same object"):
        SaveIFIMd("image", tmp_path, preprocessing=other)(data)


def test_missing_preprocessing_is_refused_naming_both_cures(
    data: dict[str, MetaTensor], tmp_path: Path, network: nn.Module
) -> None:
    with pytest.raises(GeometryError, match=r"preprocessing=.*space='network'"):
        SaveIFIM(tmp_path)(data["image"], IFIMDecompose(network)(data["image"]))


def test_plain_tensors_are_refused(data: dict[str, MetaTensor], tmp_path: Path, network: nn.Module) -> None:
    plain = data["image"].as_tensor()
    with pytest.raises(InputError, match="no metadata"):
        SaveIFIM(tmp_path, space="network")(plain, IFIMDecompose(network)(plain))
    stripped = {n: v.as_subclass(torch.Tensor) for n, v in IFIMDecompose(network)(data["image"]).items()}
    with pytest.raises(InputError, match="record"):
        SaveIFIM(tmp_path, space="network")(data["image"], stripped)


def test_an_image_without_a_file_is_refused_unless_its_source_is_given(tmp_path: Path, network: nn.Module) -> None:
    image = MetaTensor(torch.rand(1, 6, 7, 8), affine=torch.eye(4, dtype=torch.float64))
    components = IFIMDecompose(network)(image)
    with pytest.raises(InputError, match="does not name its file"):
        SaveIFIM(tmp_path, space="network")(image, components)
    SaveIFIM(tmp_path, space="network")(image, components, source=Source(Path("gone.nii.gz"), 4))
    content = json.loads((tmp_path / "gone_frame-004" / "gone_frame-004_ifim.json").read_text())
    assert (content["input"]["frame"], content["input"]["sha256"]) == (4, None)


def test_components_under_another_prefix_are_named_as_missing(data: dict[str, MetaTensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ifim_high.*IFIMDecomposed before SaveIFIMd"):
        SaveIFIMd("image", tmp_path, prefix="other")(data)


@pytest.mark.parametrize(("settings", "named"), [({"space": "world"}, "world"), ({"contents": ("high", "halves")}, "halves")])
def test_unknown_settings_are_refused_at_once(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=named):
        SaveIFIM(tmp_path, **settings)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photographs_files_lie_on_the_picture_as_itk_shows_it(
    suffix: str, tmp_path: Path, make_network: MakeNetwork, read_itk: ReadAlike
) -> None:
    grey = (np.add.outer(np.arange(11) * 3, np.arange(17) * 9) + 20).astype(np.uint8)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(grey).save(path, **({"quality": 95} if suffix == "jpg" else {}))
    pre = Compose([LoadImage(), EnsureChannelFirst(), Resize((33, 21), mode="bilinear", align_corners=True)])
    image = pre(str(path))
    SaveIFIM(tmp_path / "out", preprocessing=pre)(image, IFIMDecompose(make_network(dims=2))(image))
    picture, found = read_itk(path), read_itk(tmp_path / "out" / "photo" / "photo_ifim_input.nii.gz")
    assert found.values.shape == (17, 11, 1)
    np.testing.assert_allclose(found.corners, picture.corners, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.values[..., 0], picture.values, rtol=0, atol=3)


def test_a_numpy_files_maps_lie_at_the_origin_in_steps_of_one(
    tmp_path: Path, network: nn.Module, read_alike: ReadAlike, corners_of: Callable[..., Array]
) -> None:
    np.save(tmp_path / "array.npy", np.add.outer(np.arange(9.0), np.add.outer(np.arange(7.0), np.arange(11.0))))
    steps = [LoadImage(), EnsureChannelFirst(channel_dim="no_channel"), Resize((17, 13, 21), mode="trilinear")]
    pre = Compose(steps)
    image = pre(str(tmp_path / "array.npy"))
    SaveIFIM(tmp_path / "out", preprocessing=pre)(image, IFIMDecompose(network)(image))
    volumes = read_case(tmp_path / "out" / "array", read_alike)
    assert_split(volumes)
    np.testing.assert_allclose(volumes["high"].corners, corners_of(np.eye(4), (9, 7, 11)), rtol=0, atol=1e-3)


def test_a_single_dicom_slices_files_lie_where_itk_puts_the_slice(
    tmp_path: Path, make_bundle: Callable[..., Path], read_itk: ReadAlike
) -> None:
    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    bundle = load_bundle(make_bundle(tmp_path / "bundle", dims=2))
    image = bundle.preprocess(path)
    SaveIFIM(tmp_path / "out", preprocessing=bundle.preprocessing)(image, IFIMDecompose(bundle.network)(image))
    slice_, found = read_itk(path), read_itk(tmp_path / "out" / "CT_small" / "CT_small_ifim_high.nii.gz")
    assert found.values.shape == (128, 128, 1)
    np.testing.assert_allclose(found.corners, slice_.corners, rtol=0, atol=1e-3)


def test_lost_places_are_refused_on_the_networks_grid(tmp_path: Path, write_scan: Callable[..., Path], oblique: Any) -> None:
    load = [LoadImaged("image"), EnsureChannelFirstd("image")]
    scan = write_scan(tmp_path / "scan.nii.gz", (11, 6, 8), oblique)
    swapped = Compose([*load, Transposed("image", [0, 3, 1, 2])])
    with pytest.raises(GeometryError, match="Transpose"):
        network_affine(swapped({"image": scan})["image"], swapped)
    plane = Compose([*load, SpatialCropd("image", roi_slices=[slice(None), slice(None), slice(3, 4)]), SqueezeDimd("image", -1)])
    with pytest.raises(GeometryError, match="is a plane of a volume"):
        network_affine(plane({"image": scan})["image"], plane)


@pytest.mark.parametrize("exponent", [0, -30, -200])
def test_a_sensitivity_below_float32_is_stored_as_a_multiple_that_the_sidecar_states(
    exponent: int, scan: Path, tmp_path: Path, array_steps: Compose, network: nn.Module
) -> None:
    image = array_steps(str(scan))
    components = dict(IFIMDecompose(network, rank=1)(image))
    true = components["ifim_sensitivity"].to(torch.float64) * 10.0**exponent
    components["ifim_sensitivity"] = true
    sidecar = SaveIFIM(tmp_path / "out", space="network", preprocessing=array_steps)(image, components)
    files = {file["kind"]: file for file in json.loads(sidecar.read_text())["files"]}
    stated = files["sensitivity"]
    stored = np.asarray(nib.load(sidecar.parent / stated["file"]).dataobj, dtype=np.float64)
    expected = true.as_subclass(torch.Tensor)[0].numpy()
    np.testing.assert_allclose(stored * stated["scale"], expected, rtol=1e-6, atol=1e-6 * expected.max())
    assert stated["norm"] == pytest.approx(float(np.linalg.norm(expected)), rel=1e-5)
    assert files["high"]["scale"] == 1.0


@pytest.mark.parametrize("space", ["native", "network"])
def test_image_and_low_are_shown_between_the_same_ends(
    space: str, written: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    written(space)
    content = json.loads((tmp_path / "out" / "scan" / "scan_ifim.json").read_text(encoding="utf-8"))
    windows = {file["kind"]: file["window"] for file in content["files"]}
    assert windows["low"] == windows["input"] != windows["high"]


def test_files_and_plot_are_shown_between_the_same_ends(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], network: nn.Module
) -> None:
    pre = steps()
    image = pre({"image": str(scan)})["image"]
    SaveIFIM(tmp_path / "out", space="network", preprocessing=pre)(image, IFIMDecompose(network, rank=1)(image))
    content = json.loads((tmp_path / "out" / "scan" / "scan_ifim.json").read_text(encoding="utf-8"))
    figure = decompose(network, image.as_tensor()[None], rank=1).plot(components=1)
    drawn = {axes.get_label().partition(",")[0]: axes.images[0].get_clim() for axes in figure.axes if axes.images}
    for file in content["files"]:
        name = {"input": "image", "eigenvector": "eigenvector 1"}.get(file["kind"], file["kind"])
        np.testing.assert_allclose(np.array(file["window"]) * file["scale"], drawn[name], rtol=1e-4, err_msg=name)
    assert len(content["files"]) == 5
