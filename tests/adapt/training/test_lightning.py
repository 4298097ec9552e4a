"""The callback of Lightning: what it logs, and that it leaves the training as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_ifim import IFIMError, decompose
from monai_ifim.adapt.training.lightning import IFIMCallback

SHAPE = (2, 9, 7)


class Classifier(lightning.LightningModule):
    """A small network; `seen` holds the weights at each validation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(126, 8), nn.Tanh(), nn.Linear(8, 3))
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        if index == 0 and not self.trainer.sanity_checking:
            self.seen.append({name: value.clone() for name, value in self.state_dict().items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def batches() -> DataLoader:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(7, *SHAPE, generator=generator)
    return DataLoader([(image, i % 3) for i, image in enumerate(images)], batch_size=3)


def fit(callback: IFIMCallback, folder: Path, loggers: list[Any], module: Classifier | None = None) -> Classifier:
    module = module or Classifier()
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=loggers,
        callbacks=[callback],
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, batches(), batches())
    return module


@pytest.mark.slow
def test_numbers_and_pictures_of_two_epochs_are_logged(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    loggers = [
        TensorBoardLogger(tmp_path, name="", version="board"),
        MLFlowLogger("ifim", tracking_uri=store, artifact_location=str(tmp_path / "artifacts")),
    ]
    callback = IFIMCallback(head="categorical", rank=2, images=5, pictures=2)
    module = fit(callback, tmp_path, loggers)

    images = torch.cat([batch[0] for batch in batches()])[:5]
    expected = []
    for weights in module.seen:
        network = Classifier()
        network.load_state_dict(weights)
        expected.append(float(np.median(decompose(network.eval(), images, head="categorical", rank=2).trace)))
    assert expected[0] != expected[1]

    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.value for event in events.Scalars("ifim_trace")] == pytest.approx(expected, rel=1e-5)
    assert [event.step for event in events.Images("ifim_overlay_2")] == [0, 1]
    client = MlflowClient(store)
    run = client.get_run(loggers[1].run_id)
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "ifim_trace")] == pytest.approx(
        expected, rel=1e-5
    )
    pictures = [artifact.path for artifact in client.list_artifacts(run.info.run_id, "images")]
    assert sum(path.endswith(".png") for path in pictures) == 4


@pytest.mark.slow
def test_a_callback_changes_no_weight_and_other_loggers_get_no_pictures(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="CSVLogger gets the numbers of the decomposition, but no pictures"):
        watched = fit(IFIMCallback(head="categorical", images=1), tmp_path, [CSVLogger(tmp_path)])
    torch.manual_seed(5)
    free = Classifier()
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(free, batches())
    for name, value in free.state_dict().items():
        torch.testing.assert_close(watched.state_dict()[name], value, rtol=0, atol=0)


def test_wrong_numbers_and_batches_are_refused() -> None:
    with pytest.raises(IFIMError, match="decompose one image or more"):
        IFIMCallback(images=2, pictures=3)
    with pytest.raises(IFIMError, match="give batch_transform="):
        IFIMCallback().batch_transform({"scan": torch.zeros(1)})
    with pytest.raises(IFIMError, match="unknown setting 'ranks'"):
        IFIMCallback(ranks=2)  # type: ignore[call-arg]
