"""The figures of docs/training_logs.md: TensorBoard's own page, and what MLflow keeps, of the page's first block."""

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
from urllib.request import urlopen

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from docs.figures.browser import chromium, photograph
from docs.figures.catalogue import ROOT

SHOWN = ("ifim_trace", "ifim_leading_eigenvalue", "ifim_rank")
PATIENCE, DRAWN = 60.0, 10.0  # seconds until TensorBoard has started; until its page is drawn
STORE = "sqlite:///mlflow.db"


def draw_figures(demo: Path, output: Path) -> None:
    """Train as the page does, and write both figures; the demo is not drawn."""
    page = (ROOT / "docs" / "training_logs.md").read_text(encoding="utf-8")
    first = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)[0]
    with chdir(output):
        exec(compile(first, "training_logs.md", "exec"), {"__name__": "page"})
        mlflow_figure().savefig(output / "training-mlflow.png", dpi=90)
    _photograph_tensorboard(output / "logs", output / "training-tensorboard.png")


def mlflow_figure() -> Figure:
    """The metrics of the run in MLflow's store, by epoch, and its last picture."""
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    client = MlflowClient(STORE)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    *panels, shown = figure.subplots(1, len(SHOWN) + 1)
    for axes, name in zip(panels, SHOWN, strict=True):
        history = client.get_metric_history(run.info.run_id, name)
        axes.plot([each.step for each in history], [each.value for each in history], marker="o")
        axes.set(title=name, xlabel="epoch", xticks=[each.step for each in history])
    pictures = sorted(each.path for each in client.list_artifacts(run.info.run_id))
    path = download_artifacts(run_id=run.info.run_id, artifact_path=pictures[-1], tracking_uri=STORE)
    shown.imshow(np.asarray(Image.open(path)))
    shown.set(title=pictures[-1], xticks=[], yticks=[])
    return figure


def _photograph_tensorboard(logs: Path, target: Path) -> None:
    """Start TensorBoard on the logs, photograph its page, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/#timeseries"
        _wait_for(address, process)
        with chromium(1280, 900) as driver:
            driver.get(address)
            time.sleep(DRAWN)
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
