"""`IFIMHandler` and `IFIMInferer` in scanner space: the components of `decompose_scan`, the evaluator's predictions unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Activationsd,
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    Lambdad,
    LoadImage,
    LoadImaged,
    NormalizeIntensity,
    NormalizeIntensityd,
    Resized,
    ScaleIntensityd,
    SqueezeDimd,
)
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMHandler, IFIMInferer, SaveIFIMd, decompose_scan
from monai_ifim.adapt.scanner.space import ScannerSpace
from monai_ifim.core import Decomposition
from monai_ifim.io import read_sidecar
from monai_ifim.io.errors import innermost

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
KEYS = ["ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors", "ifim_eigenvalues", "ifim_rank"]


@pytest.fixture
def paths(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> list[Path]:
    """Two volumes of different grids at different places."""
    other = oblique.copy()
    other[:3, 3] += 7.0
    return [
        write_scan(tmp_path / "in" / "a.nii.gz", (11, 9, 13), oblique),
        write_scan(tmp_path / "in" / "b.nii.gz", (10, 12, 9), other, shift=0.4),
    ]


@pytest.fixture
def normalised(steps: Callable[..., Compose]) -> Compose:
    """Orientation, spacing, size, and then the image's own statistics."""
    return Compose([steps(), NormalizeIntensityd("image", nonzero=True, channel_wise=True)])


def loader_of(paths: list[Path], preprocessing: Any, batch: int = 1) -> DataLoader:
    return DataLoader(Dataset([{"image": str(path)} for path in paths], preprocessing), batch_size=batch)


def run(loader: DataLoader, network: nn.Module, **settings: Any) -> list[dict[str, Any]]:
    """Every item that an evaluator puts out."""
    seen: list[dict[str, Any]] = []
    evaluator = SupervisedEvaluator(device=CPU, val_data_loader=loader, network=network, **settings)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.extend(engine.state.output))
    evaluator.run()
    return seen


def expected(network: nn.Module, preprocessing: Compose, path: Path, **options: Any) -> tuple[Decomposition, MetaTensor]:
    scan = Compose([LoadImage(), EnsureChannelFirst()])(str(path))
    return decompose_scan(network, preprocessing, scan, **options), scan


def assert_components(item: dict[str, Any], found: Decomposition, scan: MetaTensor) -> None:
    assert item["ifim_high"].shape == scan.shape
    torch.testing.assert_close(item["ifim_high"].as_tensor(), found.high[0])
    torch.testing.assert_close(item["ifim_high"].as_tensor() + item["ifim_low"].as_tensor(), scan.as_subclass(Tensor))
    torch.testing.assert_close(item["ifim_eigenvalues"], found.eigenvalues[0])
    torch.testing.assert_close(item["ifim_high"].affine, scan.affine, rtol=0, atol=1e-9)


def assert_files(folder: Path, found: Decomposition, scan: MetaTensor, read_alike: Callable[[Path], Any]) -> None:
    name = folder.name
    volumes = {part: read_alike(folder / f"{name}_ifim_{part}.nii.gz") for part in ("input", "high", "low")}
    plain = scan.as_subclass(Tensor)[0].numpy()
    size = float(np.abs(plain).max())
    np.testing.assert_allclose(volumes["input"].values, plain, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(volumes["high"].values + volumes["low"].values, plain, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(volumes["high"].values, found.high[0, 0], rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(volumes["high"].affine, scan.affine, atol=1e-5)
    sidecar = read_sidecar(folder / f"{name}_ifim.json")
    assert sidecar["space"]["name"] == "scanner"
    assert sidecar["preprocessing"] == found.record["preprocessing"]
    np.testing.assert_allclose(sidecar["eigenvalues"], found.eigenvalues[0, : found.rank[0]], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True])
def test_a_handler_told_space_scanner_gives_and_writes_the_components_of_decompose_scan(
    amp: bool,
    paths: list[Path],
    normalised: Compose,
    make_network: Callable[..., nn.Module],
    read_alike: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    network = make_network()
    later = Compose([Activationsd("pred", softmax=True)])
    handler = IFIMHandler(rank=2, space="scanner", preprocessing=normalised, output_dir=tmp_path / "out", locality=True)
    settings = {"postprocessing": later, "amp": amp}
    alone = run(loader_of(paths, normalised), network, **settings)
    items = run(loader_of(paths, normalised), network, val_handlers=[handler], **settings)
    for item, before, path in zip(items, alone, paths, strict=True):
        assert torch.equal(item["pred"].as_tensor(), before["pred"].as_tensor())
        assert torch.equal(item["image"].as_tensor(), before["image"].as_tensor())
        assert [key for key in item if key.startswith("ifim")] == KEYS
        found, scan = expected(network, normalised, path, rank=2)
        assert_components(item, found, scan)
        assert_files(tmp_path / "out" / path.name.split(".")[0], found, scan, read_alike)


def test_a_handler_takes_a_scanner_space_with_settings_of_its_own(
    paths: list[Path],
    normalised: Compose,
    make_network: Callable[..., nn.Module],
    read_alike: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    network, settings = make_network(), {"statistics": "freeze", "resolution": 4.0}
    handler = IFIMHandler(scanner=ScannerSpace(normalised, **settings), output_dir=tmp_path / "out")  # type: ignore[arg-type]
    for item, path in zip(run(loader_of(paths, normalised), network, val_handlers=[handler]), paths, strict=True):
        found, scan = expected(network, normalised, path, **settings)
        assert_components(item, found, scan)
        assert_files(tmp_path / "out" / path.name.split(".")[0], found, scan, read_alike)


def test_an_inferer_with_its_files(
    paths: list[Path],
    normalised: Compose,
    make_network: Callable[..., nn.Module],
    read_alike: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    network = make_network()
    inferer = IFIMInferer(energy=0.8, scanner=ScannerSpace(normalised))
    save = SaveIFIMd("pred", tmp_path / "out", space="scanner", image_key="image")
    alone = run(loader_of(paths, normalised), network)
    items = run(loader_of(paths, normalised), network, inferer=inferer, postprocessing=Compose([save]))
    for item, before, path in zip(items, alone, paths, strict=True):
        torch.testing.assert_close(item["pred"]["pred"], before["pred"].as_tensor())
        found, scan = expected(network, normalised, path, energy=0.8)
        assert_components(item["pred"], found, scan)
        assert_files(tmp_path / "out" / path.name.split(".")[0], found, scan, read_alike)


@pytest.mark.parametrize("way", ["handler", "inferer"])
def test_where_the_preprocessing_keeps_the_grid_the_input_is_still_the_scan(
    way: str, paths: list[Path], make_network: Callable[..., nn.Module], read_alike: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Nothing tells the network's input from the scan but its values."""
    steps = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), ScaleIntensityd("image", 0.0, 50.0)])
    network = make_network()
    scanner = ScannerSpace(steps)
    if way == "handler":
        run(loader_of(paths, steps), network, val_handlers=[IFIMHandler(scanner=scanner, output_dir=tmp_path / "out")])
    else:
        save = Compose([SaveIFIMd("pred", tmp_path / "out", space="scanner")])
        run(loader_of(paths, steps), network, inferer=IFIMInferer(scanner=scanner), postprocessing=save)
    for path in paths:
        assert_files(tmp_path / "out" / path.name.split(".")[0], *expected(network, steps, path), read_alike)


@pytest.mark.parametrize(
    "guard",
    [torch.inference_mode, torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "grad", "autocast"],
)
def test_any_mode_around_the_evaluator_leaves_its_predictions_as_they_are(
    guard: Callable[[], AbstractContextManager[None]],
    paths: list[Path],
    normalised: Compose,
    make_network: Callable[..., nn.Module],
) -> None:
    network, handler = make_network(), IFIMHandler(space="scanner", preprocessing=normalised, energy=1.0)
    with guard():
        alone = run(loader_of(paths, normalised), network)
        items = run(loader_of(paths, normalised), network, val_handlers=[handler])
    for item, before, path in zip(items, alone, paths, strict=True):
        assert torch.equal(item["pred"].as_tensor(), before["pred"].as_tensor())
        scan = Compose([LoadImage(), EnsureChannelFirst()])(str(path)).as_subclass(Tensor)
        torch.testing.assert_close((item["ifim_high"] + item["ifim_low"]).as_tensor(), scan)


def test_further_arguments_of_the_network_are_passed_on(
    paths: list[Path], normalised: Compose, make_network: Callable[..., nn.Module]
) -> None:
    class Conditioned(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, image: Tensor, shift: Tensor, *, gain: float = 1.0) -> Tensor:
            return gain * self.backbone(image * shift[:, None, None, None, None])

    network = Conditioned(make_network()).eval()

    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None, tuple[Tensor], dict[str, float]]:
        return batch["image"], None, (torch.tensor([0.5]),), {"gain": 3.0}

    handler = IFIMHandler(space="scanner", preprocessing=normalised, rank=2)
    items = run(loader_of(paths[:1], normalised), network, prepare_batch=prepare, val_handlers=[handler])
    found, scan = expected(lambda image: 3.0 * network.backbone(image * 0.5), normalised, paths[0], rank=2)
    assert_components(items[0], found, scan)


def test_a_label_that_is_read_beside_the_image_need_not_be_read_again(
    paths: list[Path], make_network: Callable[..., nn.Module]
) -> None:
    both = ["image", "label"]
    reading = [LoadImaged(both), EnsureChannelFirstd(both)]
    steps = Compose([*reading, Resized(both, (8, 7, 9)), NormalizeIntensityd("image")])
    loader = DataLoader(Dataset([{"image": str(path), "label": str(path)} for path in paths], steps), batch_size=1)
    network = make_network()
    items = run(loader, network, val_handlers=[IFIMHandler(space="scanner", preprocessing=steps, rank=1)])
    for item, path in zip(items, paths, strict=True):
        assert_components(item, *expected(network, steps, path, rank=1))


def test_an_array_preprocessing_is_read_again_too(
    paths: list[Path], array_steps: Compose, make_network: Callable[..., nn.Module]
) -> None:
    steps, network = Compose([array_steps, NormalizeIntensity()]), make_network()
    batch = steps(str(paths[0]))[None]
    found, _ = expected(network, steps, paths[0], rank=2)
    tensors = IFIMInferer(rank=2, scanner=ScannerSpace(steps))(batch, network)
    torch.testing.assert_close(tensors["ifim_high"].as_tensor(), found.high)
    torch.testing.assert_close(tensors["ifim_eigenvalues"], found.eigenvalues)


def test_a_plane_that_the_preprocessing_takes_out_of_a_volume_is_decomposed_in_the_volume(
    paths: list[Path], make_network: Callable[..., nn.Module]
) -> None:
    def middle(image: Tensor) -> Tensor:
        return image[..., image.shape[-1] // 2 : image.shape[-1] // 2 + 1]

    plane = [Lambdad("image", middle), SqueezeDimd("image", dim=-1), NormalizeIntensityd("image")]
    steps = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), *plane])
    network = make_network(dims=2)
    items = run(loader_of(paths, steps), network, val_handlers=[IFIMHandler(scanner=ScannerSpace(steps, planar=True), rank=1)])
    for item, path in zip(items, paths, strict=True):
        assert_components(item, *expected(network, steps, path, rank=1))
        seen = torch.zeros(item["ifim_eigenvectors"].shape[-1], dtype=torch.bool)
        seen[len(seen) // 2] = True
        assert not item["ifim_eigenvectors"].as_tensor()[..., ~seen].any()


# Refusals.


@pytest.mark.parametrize("on_failure", ["raise", "record"])
def test_a_handler_takes_one_scan_a_batch_and_says_so(
    on_failure: Any, paths: list[Path], normalised: Compose, make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    handler = IFIMHandler(space="scanner", preprocessing=normalised, on_failure=on_failure, output_dir=tmp_path / "out")
    loader = loader_of(paths, normalised, batch=2)
    if on_failure == "raise":
        with pytest.raises(IFIMError, match=r"^case a, b: a batch of 2 images: .* needs a batch size of 1"):
            run(loader, make_network(), val_handlers=[handler])
        return
    items = run(loader, make_network(), val_handlers=[handler])
    assert [failure.case for failure in handler.failures] == ["a, b"]
    assert "batch size of 1" in handler.failures[0].reason
    assert all("ifim_high" not in item for item in items)


def test_an_inferer_takes_one_scan_a_batch_and_says_so(
    paths: list[Path], normalised: Compose, make_network: Callable[..., nn.Module]
) -> None:
    with pytest.raises(IFIMError, match="needs a batch size of 1"):
        run(loader_of(paths, normalised, batch=2), make_network(), inferer=IFIMInferer(scanner=ScannerSpace(normalised)))


def test_space_scanner_without_preprocessing_is_refused_at_once() -> None:
    with pytest.raises(IFIMError, match="pass preprocessing="):
        IFIMHandler(space="scanner")


def test_an_image_that_names_no_file_is_refused(normalised: Compose, make_network: Callable[..., nn.Module]) -> None:
    with pytest.raises(IFIMError, match="file is unknown"):
        IFIMInferer(scanner=ScannerSpace(normalised))(torch.rand(1, 1, 9, 8, 7), make_network())


def test_a_file_that_is_gone_is_refused_by_its_base_name(
    paths: list[Path], normalised: Compose, make_network: Callable[..., nn.Module]
) -> None:
    batch = normalised({"image": str(paths[0])})["image"][None]
    paths[0].unlink()
    with pytest.raises(IFIMError, match=r"^a\.nii\.gz: cannot be read again"):
        IFIMInferer(scanner=ScannerSpace(normalised))(batch, make_network())


@pytest.mark.parametrize(("scanner", "space"), [(True, "native"), (True, "network"), (False, "scanner")])
def test_files_are_not_written_in_a_space_that_the_components_are_not_in(
    scanner: bool, space: Any, paths: list[Path], normalised: Compose, make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    inferer = IFIMInferer(scanner=ScannerSpace(normalised) if scanner else None)
    save = SaveIFIMd("pred", tmp_path / "out", space=space, preprocessing=normalised)
    with pytest.raises(RuntimeError, match="applying transform") as failure:
        run(loader_of(paths, normalised), make_network(), inferer=inferer, postprocessing=Compose([save]))
    assert f"space='{space}' does not fit these components" in innermost(failure.value)
