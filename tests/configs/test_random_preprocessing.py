"""A bundle whose preprocessing is random, run with the overlays: refused by name, and the cure on MONAI's command line runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from monai_ifim.io.installation import configs_folder

OUTPUT = {"ifim.yaml": "ifim#output_dir", "ifim_inferer.yaml": "ifim_save#output_dir"}


@pytest.fixture
def augmented(tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: Any) -> Path:
    """A bundle whose third transform was copied from a training."""
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", (9, 8, 7), oblique)
    root = make_bundle(
        tmp_path / "bundle",
        steps=[
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "RandRotate90d", "keys": "image", "prob": 1.0, "max_k": 3},
        ],
    )
    path = root / "configs" / "inference.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text())
            | {
                "bundle_root": str(root),
                "network": "$@network_def.eval()",
                "dataset": {"_target_": "Dataset", "data": [{"image": str(scan)}], "transform": "@preprocessing"},
                "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
                "inferer": {"_target_": "SimpleInferer"},
                "postprocessing": {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                "evaluator": {
                    "_target_": "SupervisedEvaluator",
                    "device": "$torch.device('cpu')",
                    "val_data_loader": "@dataloader",
                    "network": "@network",
                    "inferer": "@inferer",
                    "postprocessing": "@postprocessing",
                },
                "run": ["$@evaluator.run()"],
            }
        )
    )
    return root


@pytest.mark.parametrize("overlay", OUTPUT)
def test_a_random_preprocessing_is_refused_and_the_cure_runs(overlay: str, augmented: Path, tmp_path: Path) -> None:
    def run(**changes: Any) -> None:
        files = [str(augmented / "configs" / "inference.json"), str(configs_folder() / overlay)]
        workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **changes)
        workflow.initialize()
        workflow.run()

    output = {OUTPUT[overlay]: str(tmp_path / "out")}
    with pytest.raises(Exception) as refusal:  # noqa: PT011 # MONAI wraps what a component raises
        run(**output)
    chain = []
    error: BaseException | None = refusal.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__ or error.__context__
    assert any("RandRotate90d (prob 1) in the preprocessing is random" in said for said in chain)
    run(**output, **{"preprocessing#transforms#2#prob": 0.0})
    assert (tmp_path / "out" / "scan" / "scan_ifim.json").is_file()
