"""The trained network of a bundle as a model of an experiment: its head is read from the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.bundles import BundleModel


def test_the_head_is_read_from_the_bundle_and_a_contradiction_is_refused_in_the_words_of_evaluate(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    root = make_bundle(tmp_path / "bundle")
    path = root / "configs" / "inference.json"
    sigmoid = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"postprocessing": sigmoid}))

    def classifier(head: str = "auto") -> Any:
        return BundleModel(str(root), head).classifier(None, tmp_path, None)  # type: ignore[arg-type] # neither is looked at

    assert classifier().head == "bernoulli"
    assert "Activationsd(sigmoid=True)" in classifier().record["head_source"]
    (root / "configs" / "train.json").write_text(json.dumps({"loss": {"_target_": "torch.nn.CrossEntropyLoss"}}))
    with pytest.raises(IFIMError, match="--set head=bernoulli or --set head=categorical"):
        classifier()
    assert classifier("categorical").head == "categorical"  # the cure
