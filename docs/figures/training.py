"""The figures of docs/training_logs.md: TensorBoard's own page for MONAI's log and Lightning's, and what MLflow keeps.

The page's blocks are run with images and a network that learn something in place of the page's stand-ins, for more epochs.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from docs.figures.browser import chromium, photograph
from docs.figures.catalogue import ROOT

SHOWN = ("ifim_trace", "ifim_leading_eigenvalue", "ifim_locality_radius")
PICTURES = ("output", "ifim_overlay_1")  # tags of MONAI's handler and of Lightning's callback
EPOCHS = 8
PATIENCE, DRAWN = 60.0, 10.0  # seconds until TensorBoard has started; until its page is drawn
STORE = "sqlite:///mlflow.db"
SIZE = (1440, 600)  # pixels: three cards side by side
OPTIONS = urlencode({"tagFilter": "|".join((*SHOWN[1:], *PICTURES)), "smoothing": "0"})  # of TensorBoard's address
STAND_INS = """
torch.manual_seed(1)
network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 7, padding=3),
    torch.nn.ReLU(),
    torch.nn.AdaptiveMaxPool2d(3),
    torch.nn.Flatten(),
    torch.nn.Linear(72, 2),
)
rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")


def scan(lesion):
    row, column = 12 + 24 * torch.rand(1), 10 + 20 * torch.rand(1)
    spot = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
    return (0.3 * torch.randn(48, 40) + lesion * spot)[None]


loader = DataLoader(Dataset([{"image": scan((i + 1) % 2), "label": (i + 1) % 2} for i in range(48)]), batch_size=8)
"""


def draw_figures(demo: Path, output: Path) -> None:
    """Train as the page does, and write the figures; the demo is not drawn."""
    page = (ROOT / "docs" / "training_logs.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    with chdir(output):
        for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
            exec(compile(learning(block), "training_logs.md", "exec"), names)
        mlflow_figure().savefig(output / "training-mlflow.png", dpi=90)
    (lightning,) = (output / "lightning_logs").rglob("version_0")
    _photograph_tensorboard(output / "logs", output / "training-tensorboard.png")
    _photograph_tensorboard(lightning, output / "training-lightning.png")


def learning(block: str) -> str:
    """A block of the page with STAND_INS in place of its own, the locality radius, and more epochs."""
    changed = re.sub(r"^# Stand-ins.*?(?=^device)", STAND_INS, block, flags=re.MULTILINE | re.DOTALL)
    changed = changed.replace('head="categorical"', 'head="categorical", locality=True')
    return changed.replace("max_epochs=2", f"max_epochs={EPOCHS}")


def mlflow_figure() -> Figure:
    """The metrics of the run in MLflow's store, by epoch, and its last picture."""
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    client = MlflowClient(STORE)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    *panels, shown = figure.subplots(1, len(SHOWN) + 1, width_ratios=[1, 1, 1, 0.8])
    for axes, name in zip(panels, SHOWN, strict=True):
        history = client.get_metric_history(run.info.run_id, name)
        axes.plot([each.step for each in history], [each.value for each in history], marker="o")
        axes.set(title=name, xlabel="epoch", xticks=[each.step for each in history], ylim=(0, None))
    (picture, *_) = [each.path for each in client.list_artifacts(run.info.run_id) if f"{EPOCHS:04d}_image-1" in each.path]
    path = download_artifacts(run_id=run.info.run_id, artifact_path=picture, tracking_uri=STORE)
    shown.imshow(np.asarray(Image.open(path)))
    shown.set(xticks=[], yticks=[])
    shown.set_title(picture.replace("_image", "\n_image"))
    return figure


def _photograph_tensorboard(logs: Path, target: Path) -> None:
    """Start TensorBoard on the logs, photograph its page, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/?{OPTIONS}#timeseries"
        _wait_for(address, process)
        with chromium(*SIZE) as driver:
            driver.get(address)
            time.sleep(DRAWN)
            driver.find_element("css selector", ".settings-button").click()  # closes the settings
            time.sleep(DRAWN / 5)
            photograph(driver, target)
    finally:
        process.kill()
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            urlopen(address).close()
            return
        except (URLError, ConnectionError) as error:
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("TensorBoard did not start") from error
            time.sleep(0.2)
