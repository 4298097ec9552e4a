"""Numbers and pictures of decompositions in the logs of a training: event files and an MLflow store, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Average
from mlflow.tracking import MlflowClient
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    MLFlowHandler,
    StatsHandler,
    TensorBoardImageHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
)
from monai.transforms import Compose, LoadImage
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMHandler, IFIMInferer, decompose
from monai_ifim.adapt.training import IFIMMetric, IFIMStatistics, OverlayFiles, OverlayPictures, no_pictures
from monai_ifim.io import read_sidecar

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
SIZE = (7, 10, 6)
SETTINGS = {"head": "categorical", "rank": 1, "space": "network"}


def classifier(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(7 * 10 * 6, outputs)).eval()


@pytest.fixture
def loader(write_scan: Callable[..., Path], oblique: Array, tmp_path: Path, steps: Callable[..., Compose]) -> DataLoader:
    paths = [write_scan(tmp_path / "in" / f"{name}.nii.gz", (21, 26, 17), oblique, shift=0.3 * i) for i, name in enumerate("abc")]
    chain = steps()
    chain.transforms[-1].resizer.spatial_size = SIZE
    data = [{"image": str(path), "label": i % 2} for i, path in enumerate(paths)]

    def prepared(entry: dict[str, Any]) -> dict[str, Any]:
        return {"image": chain({"image": entry["image"]})["image"], "label": entry["label"]}

    return DataLoader(Dataset(data, prepared), batch_size=2)


def trained(network: nn.Module, loader: DataLoader, evaluator: SupervisedEvaluator) -> None:
    """Two epochs, each followed by a validation."""
    SupervisedTrainer(
        CPU,
        max_epochs=2,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1e-3),
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=[ValidationHandler(1, evaluator)],
    ).run()


def test_event_files_and_an_mlflow_store_hold_numbers_and_pictures_of_two_epochs(loader: DataLoader, tmp_path: Path) -> None:
    network, logs, store = classifier(), tmp_path / "logs", f"sqlite:///{tmp_path / 'mlflow.db'}"
    pictures, files = tmp_path / "pictures", tmp_path / "ifim" / "epoch-{epoch:02d}"
    mlflow = MLFlowHandler(
        store, iteration_log=False, experiment_name="ifim", artifacts=[pictures], artifact_location=str(tmp_path / "a")
    )
    said: list[dict[str, float]] = []
    evaluator = SupervisedEvaluator(
        CPU,
        loader,
        network,
        key_val_metric={"images": Average(output_transform=lambda output: float(len(output)))},
        additional_metrics={"ifim": IFIMMetric()},
        val_handlers=[
            IFIMHandler(output_dir=files, **SETTINGS),  # type: ignore[arg-type]
            OverlayFiles(pictures, images=2),
            StatsHandler(iteration_log=False, epoch_print_logger=lambda engine: said.append(dict(engine.state.metrics))),
            TensorBoardStatsHandler(log_dir=str(logs), iteration_log=False),
            TensorBoardImageHandler(
                log_dir=str(logs), batch_transform=no_pictures, output_transform=OverlayPictures(), max_channels=3
            ),
            mlflow,
        ],
    )
    trained(network, loader, evaluator)
    mlflow.close()

    assert evaluator.state.metric_details["ifim"].shape == (3, 5)
    traces = {}
    for epoch in (1, 2):
        sidecars = [read_sidecar(path) for path in sorted((tmp_path / "ifim" / f"epoch-{epoch:02d}").glob("*/*_ifim.json"))]
        assert len(sidecars) == 3
        traces[epoch] = float(np.median([sidecar["trace"] for sidecar in sidecars]))
    assert traces[1] != traces[2]
    assert [metrics["ifim_trace"] for metrics in said] == pytest.approx(list(traces.values()), rel=1e-9)

    events = EventAccumulator(str(logs))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("ifim_trace")} == pytest.approx(traces, rel=1e-5)
    assert {"ifim_leading_eigenvalue", "ifim_rank", "ifim_energy_kept"} <= set(events.Tags()["scalars"])
    drawn = [tag for tag in events.Tags()["images"] if tag.startswith("output")]
    assert [event.step for event in events.Images(drawn[0])] == [1, 2]

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ifim").experiment_id])
    recorded = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "ifim_trace")}
    assert recorded == pytest.approx(traces, rel=1e-9)
    names = [f"ifim_overlay_epoch-{epoch:04d}_image-{image}.png" for epoch in (1, 2) for image in (1, 2)]
    assert sorted(Path(artifact.path).name for artifact in client.list_artifacts(run.info.run_id)) == names
    assert sorted(path.name for path in pictures.iterdir()) == names


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_statistics_are_those_of_the_decompositions(statistic: Any) -> None:
    x = torch.rand(5, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    network, found = classifier(), IFIMStatistics(statistic)
    for part in (x[:2], x[2:]):
        found(IFIMInferer(head="categorical", energy=0.8, locality=True)(MetaTensor(part), network))
    d = decompose(network, x, head="categorical", energy=0.8, locality=True)
    of = {"median": np.median, "mean": np.mean}[statistic]
    assert found.aggregate() == pytest.approx(
        {
            "ifim_trace": of(d.trace.numpy()),
            "ifim_leading_eigenvalue": of(d.eigenvalues[:, 0].numpy()),
            "ifim_rank": of(d.rank.numpy()),
            "ifim_energy_kept": of(d.energy.numpy()),
            "ifim_locality_radius": of(d.locality_radius[:, 0].numpy()),
        },
        rel=1e-4,
    )


def test_numbers_that_no_image_has_are_left_out() -> None:
    found = IFIMStatistics()
    found(IFIMInferer(head="categorical")(MetaTensor(torch.rand(2, 1, *SIZE)), classifier()))
    assert set(found.aggregate()) == {"ifim_trace", "ifim_leading_eigenvalue", "ifim_rank", "ifim_energy_kept"}


def test_an_output_without_components_is_refused_with_the_cure(loader: DataLoader) -> None:
    evaluator = SupervisedEvaluator(CPU, loader, classifier(), key_val_metric={"ifim_trace": IFIMMetric()})
    with pytest.raises(IFIMError, match=r"IFIMInferer\(\), or add IFIMHandler\(\)"):
        evaluator.run()
    for cure in ({"inferer": IFIMInferer(head="categorical")}, {"val_handlers": [IFIMHandler(head="categorical")]}):
        evaluator = SupervisedEvaluator(CPU, loader, classifier(), key_val_metric={"ifim_trace": IFIMMetric()}, **cure)
        evaluator.run()
        assert evaluator.state.metrics["ifim_trace"] > 0


def test_unknown_statistics_and_folders_are_refused() -> None:
    with pytest.raises(IFIMError, match="'median' or 'mean'"):
        IFIMStatistics("mode")  # type: ignore[arg-type]
    with pytest.raises(IFIMError, match="one image of each epoch or more"):
        OverlayFiles("pictures", images=0)
    for folder in ("epoch-{epoch", "{epoch:q}", "{epoch}/{case}"):
        with pytest.raises(IFIMError, match=r"'\{epoch\}' or '\{epoch:03d\}'"):
            IFIMHandler(output_dir=folder)


class Spot(nn.Module):
    """Two classes; the second one's logit is the value of one voxel."""

    def __init__(self, voxel: tuple[int, ...]) -> None:
        super().__init__()
        self.voxel = voxel

    def forward(self, x: Tensor) -> Tensor:
        value = x[(slice(None), 0, *self.voxel)]
        return torch.stack([torch.zeros_like(value), value], dim=1)


def test_the_sensitive_voxel_is_where_the_affine_puts_it(oblique: Array) -> None:
    """The picture against nibabel's canonical orientation: right is at the left, front and head are at the top."""
    voxel, image = (5, 2, 4), torch.rand(1, 1, *SIZE)
    components = IFIMInferer(head="categorical")(MetaTensor(image, affine=torch.as_tensor(oblique)[None]), Spot(voxel).eval())
    (picture,) = OverlayPictures()(decollate_batch(components))
    spot = np.zeros(SIZE)
    spot[voxel] = 1.0
    canonical = nib.as_closest_canonical(nib.Nifti1Image(spot, oblique))
    x, y, z = (int(i) for i in np.argwhere(canonical.get_fdata() == 1)[0])
    right, front, head = (size - 1 for size in canonical.shape)
    expected = [(front - y, right - x), (head - z, right - x), (head - z, front - y)]
    widths = [right + 1, right + 1, front + 1]
    assert picture.shape == (3, max(front, head) + 1, sum(widths) + 2 * 4)
    colored = np.ptp(picture, axis=0) > 0.05
    starts = [0, widths[0] + 4, widths[0] + widths[1] + 8]
    assert [(int(row), int(column)) for row, column in np.argwhere(colored)] == sorted(
        (row, start + column) for (row, column), start in zip(expected, starts, strict=True)
    )


def test_a_photograph_stands_as_it_was_read(tmp_path: Path) -> None:
    pixels = np.zeros((9, 13), dtype=np.uint8)
    pixels[2, 10] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    read = LoadImage(ensure_channel_first=True)(tmp_path / "photo.png")
    saturated = IFIMInferer(head="categorical")(list_data_collate([read]), Spot((10, 2)).eval())  # a gap of hundreds of logits
    (picture,) = OverlayPictures()(saturated)
    assert np.ptp(picture, axis=0).max() == 0  # the image alone, in grey
    components = IFIMInferer(head="categorical")(list_data_collate([read / 100]), Spot((10, 2)).eval())
    (picture,) = OverlayPictures()(components)
    assert picture.shape == (3, 9, 13)
    assert np.argwhere(np.ptp(picture, axis=0) > 0.05).tolist() == [[2, 10]]
    with pytest.raises(IFIMError, match=r"channel=1: the image has 1 channel"):
        OverlayPictures(channel=1)(components)


@pytest.mark.parametrize(("voxel", "size", "spots"), [((5, 2), (7, 10), [[5, 2]]), ((5, 2, 4), SIZE, [[2, 4], [5, 14], [5, 22]])])
def test_an_image_without_an_affine_stands_as_it_lies_in_memory(
    voxel: tuple[int, ...], size: tuple[int, ...], spots: list[list[int]]
) -> None:
    components = IFIMInferer(head="categorical")(torch.rand(2, 1, *size), Spot(voxel).eval())
    for pictures in (OverlayPictures()(components), OverlayPictures()(decollate_batch(components))):
        for picture in pictures:
            assert np.argwhere(np.ptp(picture, axis=0) > 0.05).tolist() == spots


def test_plain_engines_are_served(loader: DataLoader) -> None:
    network, inferer = classifier(), IFIMInferer(head="categorical")
    engine = Engine(lambda engine, batch: inferer(batch["image"], network))
    IFIMMetric().attach(engine, "ifim")
    engine.run(loader)
    assert json.dumps(engine.state.metrics)
    assert engine.state.metrics["ifim_rank"] >= 1
