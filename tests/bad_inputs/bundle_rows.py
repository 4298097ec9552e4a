"""Rows of bundles that are unusable, or whose network is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bad_inputs.attempt import Attempt, Row
from bad_inputs.nifti_rows import Planted

WEIGHTS, CONFIG, METADATA = Path("models/model.pt"), Path("configs/inference.json"), Path("configs/metadata.json")
Content = dict[str, Any]


def spoilt(spoil: Callable[[Path], Any]) -> Callable[[Attempt], Attempt]:
    """The attempt with a damaged copy of the bundle."""

    def make(attempt: Attempt) -> Attempt:
        root = shutil.copytree(attempt.bundle, attempt.folder / "spoilt")
        spoil(root)
        return replace(attempt, bundle=root)

    return make


def without(file: Path) -> Callable[[Attempt], Attempt]:
    return spoilt(lambda root: (root / file).unlink())


def holding(file: Path, content: bytes) -> Callable[[Attempt], Attempt]:
    return spoilt(lambda root: (root / file).write_bytes(content))


def edited(file: Path, change: Callable[[Content], Any]) -> Callable[[Attempt], Attempt]:
    def spoil(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return spoilt(spoil)


def weights(change: Callable[[Content], Any]) -> Callable[[Attempt], Attempt]:
    return spoilt(lambda root: torch.save(change(torch.load(root / WEIGHTS, weights_only=True)), root / WEIGHTS))


def planted(attempt: Attempt) -> Attempt:
    return spoilt(lambda root: torch.save({"model": Planted(attempt.folder / "executed")}, root / WEIGHTS))(attempt)


def cut(root: Path) -> None:
    (root / WEIGHTS).write_bytes((root / WEIGHTS).read_bytes()[:2000])


def script(root: Path) -> None:
    (root / WEIGHTS).rename(root / "models/model.ts")


def of_two_channels(root: Path) -> None:
    """Network and weights agree with each other, but not with the metadata."""
    state = torch.load(root / WEIGHTS, weights_only=True)
    state["0.weight"] = state["0.weight"].repeat(1, 2, 1, 1, 1)
    torch.save(state, root / WEIGHTS)
    text = (root / CONFIG).read_text()
    (root / CONFIG).write_text(text.replace("Conv3d(1, 4", "Conv3d(2, 4"))


def of_one_output(root: Path) -> None:
    state = torch.load(root / WEIGHTS, weights_only=True)
    torch.save(state | {name: state[name][:1] for name in ("4.weight", "4.bias")}, root / WEIGHTS)
    (root / CONFIG).write_text((root / CONFIG).read_text().replace("Linear(32, 3)", "Linear(32, 1)"))


def names(count: int) -> Callable[[Attempt], Attempt]:
    named = {str(i): f"class {i}" for i in range(count)}
    return edited(METADATA, lambda content: content["network_data_format"]["outputs"]["pred"].update(channel_def=named))


def stated_channels(value: Any) -> Callable[[Attempt], Attempt]:
    return edited(METADATA, lambda content: content["network_data_format"]["inputs"]["image"].update(num_channels=value))


NO_FIT = "bundle spoilt: models/model.pt does not fit network_def (...): give the weights that were saved from this network."
NAMES = "bundle tiny: {} class names for 3 outputs: correct channel_def in its configs/metadata.json."

ROWS = [
    Row("weights of another shape", weights(lambda state: {name: value[:1] for name, value in state.items()}), "refused", NO_FIT),
    Row("weights of which some are missing", weights(lambda state: dict(list(state.items())[:2])), "refused", NO_FIT),
    Row("weights without names", weights(lambda state: list(state.values())), "refused", NO_FIT),
    Row(
        "pickled code in a checkpoint", planted, "refused",
        "bundle spoilt: models/model.pt holds no plain weights (but objects or code of Python's, which are not loaded): save "
        "what network.state_dict() gives, by torch.save.",
    ),
    Row(
        "weights that are cut short", spoilt(cut), "refused",
        "bundle spoilt: models/model.pt holds no plain weights (...): copy it again, or save what network.state_dict() gives, by "
        "torch.save.",
    ),
    Row(
        "weights in an empty file", holding(WEIGHTS, b""), "refused",
        "bundle spoilt: models/model.pt holds no plain weights (EOFError): copy it again, or save what network.state_dict() "
        "gives, by torch.save.",
    ),
    Row(
        "a bundle without weights", without(WEIGHTS), "refused",
        "bundle spoilt: no weights at models/model.safetensors or models/model.pt, nor TorchScript at models/model.ts: copy one "
        "of them there.",
    ),
    Row(
        "TorchScript that cannot be loaded", spoilt(script), "refused",
        "bundle spoilt: models/model.ts cannot be loaded (...): export the network in eval mode by torch.jit.script or "
        "torch.jit.trace and torch.jit.save. ...",
    ),
    Row(
        "a folder that is no bundle", lambda attempt: replace(attempt, bundle=attempt.folder), "refused",
        "...: no bundle there (a folder with configs/ and models/ is one), nor one of ...",
    ),
    Row(
        "a bundle without an inference config", without(CONFIG), "refused",
        "bundle spoilt: none of configs/inference.json, configs/inference.yaml, configs/inference.yml in it: export the bundle "
        "again.",
    ),
    Row(
        "an inference config that is no JSON", holding(CONFIG, b"{"), "refused",
        "bundle spoilt: its inference config cannot be read (...): correct it.",
    ),
    Row(
        "an inference config that is a list", holding(CONFIG, b"[1]"), "refused",
        "bundle spoilt: inference.json is not a mapping of names to definitions: correct it.",
    ),
    Row(
        "a config without network_def", edited(CONFIG, lambda content: content.pop("network_def")), "refused",
        "bundle spoilt: its inference config has no 'network_def': define it there under this name.",
    ),
    Row(
        "a config without preprocessing", edited(CONFIG, lambda content: content.pop("preprocessing")), "refused",
        "bundle spoilt: its inference config has no 'preprocessing': define it there under this name.",
    ),
    Row(
        "a network whose class is not there",
        edited(CONFIG, lambda content: content.update(network_def={"_target_": "no.such.Net"})), "refused",
        "bundle spoilt: 'network_def' cannot be built (Cannot locate class or function path: 'no.such.Net'): correct its "
        "inference config, or install the packages that it names.",
    ),
    Row(
        "metadata that is no JSON", holding(METADATA, b"{"), "refused",
        "bundle spoilt: metadata.json cannot be read (...): correct it.",
    ),
    Row(
        "metadata that is a list", holding(METADATA, b"[]"), "refused",
        "bundle spoilt: metadata.json is list, not a mapping: correct it.",
    ),
    Row(
        "metadata with words for numbers", stated_channels("one"), "refused",
        "bundle spoilt: metadata.json states no number of channels, or no list of sizes, for input 'image': num_channels 'one', "
        "spatial_shape [9, 8, 7]: correct it.",
    ),
    Row(
        "images of fewer channels than the metadata states", stated_channels(2), "all failed",
        "...nii.gz: 1 channel(s), but the network of bundle spoilt takes 2: convert the image (a colour picture to grey, say).",
    ),
    Row(
        "a network of more channels than the metadata states", spoilt(of_two_channels), "all failed",
        "the network fails on this image (RuntimeError: ... to have 2 channels, but got 1 channels instead): run ... on "
        "the bundle.",
    ),
    Row("more class names than outputs", names(5), "all failed", NAMES.format(5)),
    Row("fewer class names than outputs", names(2), "all failed", NAMES.format(2)),
    Row(
        "a network that answers NaN",
        weights(lambda state: {name: value * np.nan for name, value in state.items()}), "all failed",
        "the network's output is NaN or infinite for this image: check its weights and the scaling of the image, or use a wider "
        "dtype; classes masked with -inf are left out of the output or masked with a large finite number.",
    ),
    Row(
        "a network that answers one number", spoilt(of_one_output), "all failed",
        "--head auto cannot tell what a single output is: pass --head bernoulli for the logit of a binary answer, "
        "--head probabilities for its sigmoid, or --head gaussian for a regression.",
    ),
]  # fmt: skip
