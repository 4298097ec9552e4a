"""`IFIMHandler` on MONAI's evaluators and on plain ignite engines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.engines import EnsembleEvaluator, IterationEvents, SupervisedEvaluator
from monai.transforms import Activationsd, Compose, Invertd, SaveImaged
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMHandler, decompose
from monai_ifim.io import read_sidecar

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
MAPS = ["ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors"]
KEYS = [*MAPS, "ifim_eigenvalues", "ifim_rank"]


@pytest.fixture
def paths(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> list[Path]:
    """Three volumes of different grids at different places."""
    grids = {"a": (21, 26, 17), "b": (19, 23, 20), "c": (18, 25, 15)}
    found = []
    for shift, (name, shape) in enumerate(grids.items()):
        affine = oblique.copy()
        affine[:3, 3] += 7.0 * shift
        found.append(write_scan(tmp_path / "in" / f"{name}.nii.gz", shape, affine, shift=0.4 * shift))
    return found


@pytest.fixture
def make_loader(paths: list[Path], steps: Callable[..., Compose]) -> Callable[..., DataLoader]:
    """Two batches: a and b together, then c alone. spoil: name of a volume whose values become NaN."""

    def make(spoil: str | None = None, preprocessing: Compose | None = None) -> DataLoader:
        chain = preprocessing or steps()

        def prepared(data: dict[str, str]) -> dict[str, MetaTensor]:
            image = chain(data)["image"]
            return {"image": image * float("nan") if data["image"].endswith(f"{spoil}.nii.gz") else image}

        return DataLoader(Dataset([{"image": str(path)} for path in paths], prepared), batch_size=2)

    return make


class Drawing(nn.Module):
    """Draws random numbers in every pass and ignores them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image + 0 * torch.rand_like(image))


class Conditioned(nn.Module):
    """Takes a second input an image and a scalar option."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, shift: Tensor, *, gain: float = 1.0) -> Tensor:
        return gain * self.backbone(image * shift[:, None, None, None, None])


def run(
    loader: DataLoader, network: nn.Module, handler: IFIMHandler | None = None, steps: tuple[Any, ...] = (), **settings: Any
) -> list[dict[str, Any]]:
    """Every item that an evaluator puts out, after softmax and `steps`."""
    seen: list[dict[str, Any]] = []
    evaluator = SupervisedEvaluator(
        device=CPU,
        val_data_loader=loader,
        network=network,
        postprocessing=Compose([Activationsd("pred", softmax=True), *steps]),
        **settings,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.extend(engine.state.output))
    if handler is not None:
        handler.attach(evaluator)
    evaluator.run()
    return seen


def plain_images(loader: DataLoader) -> list[Tensor]:
    return [image for batch in loader for image in batch["image"].as_tensor()]


def test_every_image_gets_the_components_of_core_beside_its_unchanged_prediction(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    found = run(make_loader(), network, IFIMHandler(rank=2))
    for item, alone, image in zip(found, run(make_loader(), network), plain_images(make_loader()), strict=True):
        expected = decompose(network, image[None], rank=2)
        assert [key for key in item if key.startswith("ifim")] == KEYS
        assert torch.equal(item["pred"].as_tensor(), alone["pred"].as_tensor())
        torch.testing.assert_close(item["ifim_high"].as_tensor(), expected.high[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((item["ifim_high"] + item["ifim_low"]).as_tensor(), image)
        torch.testing.assert_close(item["ifim_eigenvalues"], expected.eigenvalues[0], rtol=1e-4, atol=0)
        assert item["ifim_rank"] == 2
        torch.testing.assert_close(item["ifim_high"].affine, item["image"].affine, rtol=0, atol=0)


def test_random_numbers_modes_and_gradients_stay_as_without_it(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    network = Drawing(make_network()).train()
    states = []
    for handler in (None, IFIMHandler(locality=True)):
        torch.manual_seed(31)
        run(make_loader(), network, handler)
        states.append(torch.get_rng_state())
        assert all(module.training for module in network.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    "guard",
    [torch.inference_mode, torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "grad", "autocast"],
)
def test_any_mode_around_the_evaluator_leaves_its_prediction_bit_identical(
    guard: Callable[[], AbstractContextManager[None]],
    make_loader: Callable[..., DataLoader],
    make_network: Callable[..., nn.Module],
) -> None:
    network, loader = make_network(), make_loader()
    with guard():
        alone, found = run(loader, network), run(loader, network, IFIMHandler())
    for item, before, image in zip(found, alone, plain_images(loader), strict=True):
        assert torch.equal(item["pred"].as_tensor(), before["pred"].as_tensor())
        torch.testing.assert_close((item["ifim_high"] + item["ifim_low"]).as_tensor().float(), image)


def test_later_transforms_carry_the_components_to_the_native_grid(
    make_loader: Callable[..., DataLoader],
    make_network: Callable[..., nn.Module],
    steps: Callable[..., Compose],
    read_alike: Callable[[Path], Any],
    paths: list[Path],
    tmp_path: Path,
) -> None:
    preprocessing = steps()
    later = (
        Invertd(["ifim_high", "ifim_low", "image"], preprocessing, "image", nearest_interp=False),
        SaveImaged("ifim_high", output_dir=tmp_path / "out", separate_folder=False, print_log=False, output_postfix="high"),
    )
    loader = make_loader(preprocessing=preprocessing)
    for item, path in zip(run(loader, make_network(), IFIMHandler(), later), paths, strict=True):
        source, written = read_alike(path), read_alike(tmp_path / "out" / f"{path.name.split('.')[0]}_high.nii.gz")
        assert written.values.shape == source.values.shape
        np.testing.assert_allclose(written.corners, source.corners, atol=1e-3)
        np.testing.assert_allclose(item["ifim_high"] + item["ifim_low"], item["image"], atol=2e-5)


def test_files_are_written_as_the_components_say(
    make_loader: Callable[..., DataLoader],
    make_network: Callable[..., nn.Module],
    read_alike: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    network, loader = make_network(), make_loader()
    handler = IFIMHandler(energy=0.6, output_dir=tmp_path / "out", space="network", contents=("high", "low"))
    run(loader, network, handler)
    for name, image in zip("abc", plain_images(loader), strict=True):
        folder = tmp_path / "out" / name
        written = {f"{name}_ifim_{part}.nii.gz" for part in ("input", "high", "low")}
        assert {path.name for path in folder.glob("*.nii.gz")} == written
        expected = decompose(network, image[None], energy=0.6)
        high, low = (read_alike(folder / f"{name}_ifim_{part}.nii.gz").values for part in ("high", "low"))
        np.testing.assert_allclose(high, expected.high[0, 0], atol=1e-5)
        np.testing.assert_allclose(high + low, image[0], atol=1e-5)
        sidecar = read_sidecar(folder / f"{name}_ifim.json")
        np.testing.assert_allclose(sidecar["eigenvalues"], expected.eigenvalues[0], rtol=1e-4)


@pytest.mark.parametrize("spoiled", ["b", "c"])
def test_a_case_that_fails_ends_the_run_with_its_name(
    spoiled: str, make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    with pytest.raises(IFIMError, match=rf"^case {spoiled}: the image holds NaN"):
        run(make_loader(spoiled), make_network(), IFIMHandler())


def test_a_case_that_fails_is_recorded_where_that_is_asked_and_the_others_go_on(
    make_loader: Callable[..., DataLoader],
    make_network: Callable[..., nn.Module],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = IFIMHandler(output_dir=tmp_path / "out", space="network", on_failure="record")
    with caplog.at_level(logging.ERROR):
        found = run(make_loader("b"), make_network(), handler)
    assert [list(item) for item in found] == [["image", "label", "pred"]] * 2 + [["image", "label", "pred", *KEYS]]
    assert [failure.case for failure in handler.failures] == ["b"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c"]
    assert "iFIM of case b failed: the image holds NaN" in caplog.text
    assert "1 of 3 cases failed: b" in caplog.text


def test_files_that_cannot_be_written_fail_their_case_alone(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    handler = IFIMHandler(output_dir=tmp_path / "out", on_failure="record")  # native, and no preprocessing to be inverted
    found = run(make_loader(), make_network(), handler)
    assert [failure.case for failure in handler.failures] == ["a", "b", "c"]
    assert "pass preprocessing=" in handler.failures[0].reason
    assert all(set(KEYS) <= set(item) for item in found)


def test_the_network_gets_the_arguments_that_the_evaluator_passed(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    network, given = Conditioned(make_network()).eval(), []

    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None, tuple[Tensor], dict[str, float]]:
        given.append(torch.rand(len(batch["image"]), generator=torch.Generator().manual_seed(len(given))) + 0.5)
        return batch["image"], None, (given[-1],), {"gain": 3.0}

    found = run(make_loader(), network, IFIMHandler(rank=2), prepare_batch=prepare)
    assert len(given) == 2
    for item, shift, image in zip(found, torch.cat(given), plain_images(make_loader()), strict=True):
        expected = decompose(network, image[None], rank=2, network_args=(shift[None],), network_kwargs={"gain": 3.0})
        torch.testing.assert_close(item["ifim_eigenvalues"], expected.eigenvalues[0], rtol=1e-4, atol=0)


def test_the_evaluator_has_its_own_prepare_batch_again_after_each_batch(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return batch["image"], None

    evaluator = SupervisedEvaluator(CPU, make_loader(), make_network(), prepare_batch=prepare)
    first, second = IFIMHandler(rank=1), IFIMHandler(rank=2)
    first.attach(evaluator)
    second.attach(evaluator)
    between: list[Any] = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: between.append(engine.prepare_batch))
    assert evaluator.prepare_batch is prepare
    evaluator.run()
    assert between == [prepare, prepare]
    assert evaluator.prepare_batch is prepare
    assert (first.cases, second.cases) == (3, 3)
    evaluator.run()  # and once more
    assert (evaluator.prepare_batch, first.cases) == (prepare, 3)


def test_the_evaluator_has_its_own_prepare_batch_again_when_the_network_fails(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return batch["image"], None

    class Failing(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("no memory")

    evaluator = SupervisedEvaluator(CPU, make_loader(), Failing(), prepare_batch=prepare)
    IFIMHandler().attach(evaluator)
    with pytest.raises(RuntimeError, match="no memory"):
        evaluator.run()
    assert evaluator.prepare_batch is prepare


def test_a_run_that_ends_before_the_batch_is_prepared_leaves_the_evaluator_as_it_was(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return batch["image"], None

    def iteration(engine: Any, batch: Any) -> dict[str, Any]:
        return {}

    evaluator = SupervisedEvaluator(CPU, make_loader(), make_network(), prepare_batch=prepare, iteration_update=iteration)
    IFIMHandler().attach(evaluator)
    with pytest.raises(IFIMError, match="never fired FORWARD_COMPLETED"):
        evaluator.run()
    assert evaluator.prepare_batch is prepare


def test_images_tried_one_by_one_keep_their_own_arguments(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    """One image of two is spoilt: the other's files are those of its own share of the batch's further inputs."""
    network, shifts = Conditioned(make_network()).eval(), torch.tensor([0.7, 1.4])

    def prepare(batch: Any, *_: Any, **__: Any) -> tuple[Any, None, tuple[Tensor], dict[str, float]]:
        return batch["image"], None, (shifts[: len(batch["image"])],), {"gain": 3.0}

    handler = IFIMHandler(rank=2, output_dir=tmp_path / "out", space="network", on_failure="record")
    run(make_loader("a"), network, handler, prepare_batch=prepare)
    assert [failure.case for failure in handler.failures] == ["a"]
    second = plain_images(make_loader())[1]
    expected = decompose(network, second[None], rank=2, network_args=(shifts[1:],), network_kwargs={"gain": 3.0})
    found = read_sidecar(tmp_path / "out" / "b" / "b_ifim.json")["eigenvalues"]
    np.testing.assert_allclose(found, expected.eigenvalues[0], rtol=1e-4)


def test_a_batch_that_fails_only_as_a_whole_is_named_whole(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    class Alone(nn.Module):
        """Refuses gradients of more than one image."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = make_network()

        def forward(self, image: Tensor) -> Tensor:
            if image.requires_grad and len(image) > 1:
                raise RuntimeError("one image at a time")
            return self.backbone(image)

    with pytest.raises(IFIMError, match="^case a, b: .*one image at a time"):
        run(make_loader(), Alone().eval(), IFIMHandler())


def test_attached_twice_it_decomposes_once(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    handler = IFIMHandler()
    run(make_loader(), make_network(), handler, val_handlers=[handler])
    assert handler.cases == 3


def test_an_ensemble_needs_the_network_named(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    networks, loader = [make_network(), make_network(classes=4)], make_loader()
    settings = {"device": CPU, "val_data_loader": loader, "networks": networks}
    with pytest.raises(IFIMError, match="network="):
        EnsembleEvaluator(**settings, val_handlers=[IFIMHandler()]).run()
    seen: list[int] = []
    evaluator = EnsembleEvaluator(**settings, val_handlers=[IFIMHandler(network=networks[1], energy=1.0)])
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.extend(o["ifim_rank"] for o in e.state.output))
    evaluator.run()
    assert seen == [3, 3, 3]


@pytest.mark.parametrize("fires", [False, True])
def test_an_iteration_of_ones_own_has_to_fire_the_event(
    fires: bool, make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()

    def iteration(engine: SupervisedEvaluator, batch: Any) -> Any:
        engine.state.output = {"pred": network(batch["image"]).detach()}
        if fires:
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    handler = IFIMHandler(batch_transform=lambda batch: batch["image"])
    with nullcontext() if fires else pytest.raises(IFIMError, match="FORWARD_COMPLETED"):
        run(make_loader(), network, handler, iteration_update=iteration)
    assert handler.cases == (3 if fires else 0)


def test_without_prepare_batch_it_asks_for_the_images(
    make_loader: Callable[..., DataLoader], make_network: Callable[..., nn.Module]
) -> None:
    def iteration(engine: SupervisedEvaluator, batch: Any) -> Any:
        engine.state.output = {}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    with pytest.raises(IFIMError, match="batch_transform="):
        run(make_loader(), make_network(), IFIMHandler(), iteration_update=iteration)


class TestPlainIgniteEngine:
    """Batches (image, label); what the process function returns is the output."""

    batches = ((torch.rand(2, 1, 11, 9, generator=torch.Generator().manual_seed(4)), torch.tensor([0, 1])),)

    def engine(self, network: nn.Module, output: Callable[[Tensor, Tensor], Any]) -> Engine:
        return Engine(lambda engine, batch: output(network(batch[0]).detach(), batch[1]))

    def test_components_lie_in_a_dictionary_output(self, make_network: Callable[..., nn.Module]) -> None:
        network = make_network(dims=2)
        engine = self.engine(network, lambda pred, label: {"pred": pred, "label": label})
        IFIMHandler(network=network, batch_transform=lambda batch: batch[0]).attach(engine)
        output = engine.run(self.batches).output
        expected = decompose(network, self.batches[0][0])
        assert list(output) == ["pred", "label", *KEYS]
        torch.testing.assert_close(output["ifim_low"].as_tensor(), expected.low)

    @pytest.mark.parametrize("missing", ["network", "batch_transform"])
    def test_network_and_images_have_to_be_named(self, missing: str, make_network: Callable[..., nn.Module]) -> None:
        network = make_network(dims=2)
        settings: dict[str, Any] = {"network": network, "batch_transform": lambda batch: batch[0]}
        del settings[missing]
        with pytest.raises(IFIMError, match=f"{missing}="):
            IFIMHandler(**settings).attach(self.engine(network, lambda pred, label: pred))

    def test_another_output_is_refused_with_the_cure(self, make_network: Callable[..., nn.Module]) -> None:
        network = make_network(dims=2)
        engine = self.engine(network, lambda pred, label: (pred, label))
        IFIMHandler(network=network, batch_transform=lambda batch: batch[0]).attach(engine)
        with pytest.raises(IFIMError, match="output_dir="):
            engine.run(self.batches)

    def test_another_output_stays_as_it_is_where_files_are_written(
        self, make_network: Callable[..., nn.Module], tmp_path: Path
    ) -> None:
        names = ("one.png", "two.png")
        singles = [MetaTensor(x, meta={"filename_or_obj": name}) for x, name in zip(self.batches[0][0], names, strict=True)]
        image = list_data_collate(singles)
        network = make_network(dims=2)
        engine = self.engine(network, lambda pred, label: (pred, label))
        handler = IFIMHandler(network=network, batch_transform=lambda batch: image, output_dir=tmp_path, space="network")
        handler.attach(engine)
        output = engine.run(self.batches).output
        assert torch.equal(output[0], network(self.batches[0][0]))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    "settings",
    [{"energy": 0.0}, {"rank": 0}, {"head": "nix"}, {"on_failure": "ignore"}, {"output_dir": "out", "space": "moon"}],
    ids=lambda settings: list(settings)[-1],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(IFIMError, match=list(settings)[-1]):
        IFIMHandler(**settings)
