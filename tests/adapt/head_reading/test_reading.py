"""Heads read from the files of bundles, in the ways in which the bundles of MONAI's model zoo say them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_ifim.adapt.head_reading.reading import read_head
from monai_ifim.core.errors import HeadError

Files = Callable[..., Path]
SEGMENTATION = {"type": "image", "format": "segmentation", "num_channels": 3, "value_range": [0, 1]}
CLASSES = {"type": "probabilities", "format": "classes", "num_channels": 3, "spatial_shape": [1, 3], "value_range": [0, 1]}


def steps(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"postprocessing": {"_target_": "Compose", "transforms": list(transforms)}}


def step(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": "pred", **arguments}


INVERT = step("Invertd", transform="@preprocessing", orig_keys="image")
SAVE = step("SaveImaged", output_dir="@output_dir")
TRAIN_DICE = {"loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True}}

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str, str]] = {
    "softmax, then argmax, of a segmentation": (
        {"inference.json": steps(step("Activationsd", softmax=True), INVERT, step("AsDiscreted", argmax=True), SAVE)},
        SEGMENTATION,
        "volumes",
        "configs/inference.json: postprocessing[0] Activationsd(softmax=True)",
    ),
    "sigmoid, then threshold, of a segmentation": (
        {
            "inference.json": steps(step("Activationsd", sigmoid=True), INVERT, step("AsDiscreted", threshold=0.5), SAVE),
            "train.json": {"loss": {"_target_": "DiceLoss", "to_onehot_y": False, "sigmoid": True}},
        },
        SEGMENTATION,
        "volumes_bernoulli",
        "configs/inference.json: postprocessing[0] Activationsd(sigmoid=True)",
    ),
    "an argmax alone, and the loss": (
        {
            "inference.json": steps(INVERT, step("AsDiscreted", keys=["pred"], argmax=True, to_onehot=2)),
            "train.json": {"loss": {"_target_": "DiceFocalLoss", "to_onehot_y": True, "softmax": True}},
        },
        None,
        "volumes",
        "configs/train.json: loss DiceFocalLoss(softmax=True, to_onehot_y=True)",
    ),
    "softmax switched off beside a sigmoid, a background in the metadata": (
        {
            "inference.json": steps(
                step("Activationsd", softmax=False, sigmoid=True), step("AsDiscreted", argmax=False, threshold=0.5)
            )
        },
        SEGMENTATION | {"channel_def": {"0": "background", "1": "artery"}},
        "volumes_bernoulli",
        "Activationsd(sigmoid=True)",
    ),
    "one logit of a detection in patches": (
        {"inference.json": steps(step("EnsureTyped"), step("Activationsd", sigmoid=True), step("ToNumpyd"))},
        {"type": "probability", "format": "classification", "num_channels": 1, "spatial_shape": [1, 1]},
        "bernoulli",
        "configs/metadata.json: output 'pred', format 'classification'",
    ),
    "an argmax and cross entropy, probabilities in the metadata": (
        {
            "inference.json": steps(step("AsDiscreted", argmax=True, to_onehot=3), step("SaveClassificationd")),
            "train.json": {"loss": {"_target_": "torch.nn.CrossEntropyLoss", "reduction": "sum"}},
        },
        CLASSES,
        "categorical",
        "configs/train.json: loss CrossEntropyLoss()",
    ),
    "references to keys and lists in YAML": (
        {
            "inference.yaml": {
                "image": "$monai.utils.CommonKeys.IMAGE",
                "label": "$monai.utils.CommonKeys.LABEL",
                "pred": "$monai.utils.CommonKeys.PRED",
                "soft": True,
                "postprocessing": {
                    "_target_": "Compose",
                    "transforms": [
                        {"_target_": "Activationsd", "keys": "@pred", "softmax": "@soft"},
                        {"_target_": "SaveClassificationd", "keys": "@pred"},
                        {"_target_": "AsDiscreted", "keys": ["@label", "@pred"], "argmax": [False, True], "to_onehot": 4},
                    ],
                },
            }
        },
        None,
        "categorical",
        "configs/inference.yaml: postprocessing[0] Activationsd(softmax=True)",
    ),
    "a macro in the validation of a training config": (
        {
            "inference.json": {},
            "train.yaml": {
                "train": {"postprocessing": step("Activationsd", sigmoid=True)},
                "validate": {"postprocessing": {"_target_": "Compose", "transforms": ["%train#postprocessing"]}},
                "loss": "$torch.nn.BCEWithLogitsLoss(reduction='mean')",
            },
        },
        CLASSES,
        "bernoulli",
        "configs/train.yaml: train#postprocessing Activationsd(sigmoid=True)",
    ),
    "a loss in an expression, and a loss inside of a loss": (
        {
            "inference.json": {},
            "train.json": {
                "loss": {"_target_": "DeepSupervisionLoss", "loss": "$monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)"}
            },
        },
        None,
        "volumes",
        "configs/train.json: loss#loss DiceCELoss(softmax=True, to_onehot_y=True)",
    ),
    "array transforms": (
        {"inference.json": steps({"_target_": "Activations", "sigmoid": True}, {"_target_": "AsDiscrete", "threshold": 0.5})},
        CLASSES,
        "bernoulli",
        "Activations(sigmoid=True)",
    ),
    "an output of another name": (
        {"inference.json": steps({"_target_": "Activationsd", "keys": "diagnosis", "sigmoid": True})},
        CLASSES | {"channel_def": {"0": "a", "1": "b", "2": "c"}},
        "bernoulli",
        "Activationsd(sigmoid=True)",
    ),
    "binary cross entropy of probabilities": (
        {"inference.json": steps(step("AsDiscreted", threshold=0.5)), "train.json": {"loss": {"_target_": "torch.nn.BCELoss"}}},
        CLASSES,
        "bernoulli_probabilities",
        "configs/train.json: loss BCELoss()",
    ),
    "an amount of each image": (
        {"inference.json": {}, "train.json": {"loss": {"_target_": "torch.nn.MSELoss"}}},
        {"type": "tuple", "format": "classification", "num_channels": 1},
        "gaussian",
        "configs/train.json: loss MSELoss()",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_head_is_read_with_its_place(way: str, bundle_files: Files) -> None:
    configs, output, head, place = WAYS[way]
    reading = read_head(bundle_files(configs, output, "diagnosis" if "another name" in way else "pred"))
    assert (reading.head, reading.refusal, reading.certain) == (head, "", True)
    assert any(place in source for source in reading.sources), reading.sources
    assert reading.source("auto").startswith("read from configs/")
    assert reading.chosen("auto") == head
    assert (reading.chosen("gaussian"), reading.source("gaussian")) == ("gaussian", "asked for")


def test_keys_of_a_label_say_nothing_of_the_output(bundle_files: Files) -> None:
    label = {"_target_": "AsDiscreted", "keys": "label", "argmax": True}
    both = {"_target_": "Activationsd", "keys": ["label", "pred"], "softmax": [True, False], "sigmoid": [False, True]}
    assert read_head(bundle_files({"inference.json": steps(label, both)}, CLASSES)).head == "bernoulli"


def test_a_step_that_is_disabled_says_nothing(bundle_files: Files) -> None:
    off = step("Activationsd", sigmoid=True, _disabled_="@off")
    content = steps(off, step("Activationsd", softmax=True)) | {"off": True}
    assert read_head(bundle_files({"inference.json": content}, CLASSES)).head == "categorical"


@pytest.mark.parametrize("order", ["softmax", "argmax"])
def test_a_threshold_after_a_softmax_or_an_argmax_says_nothing(order: str, bundle_files: Files) -> None:
    first = step("Activationsd", softmax=True) if order == "softmax" else step("AsDiscreted", argmax=True)
    assert read_head(bundle_files({"inference.json": steps(first, step("AsDiscreted", threshold=0.5))}, CLASSES)).certain


def test_nothing_of_a_training_config_is_run(bundle_files: Files, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    train = {
        "imports": ["$import a_package_that_nobody_has"],
        "data": f"$open({str(marker)!r}, 'w')",
        "network_def": {"_target_": "nowhere.Network"},
        "weight": "$a_package_that_nobody_has.weights(@data)",
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "weight": "@weight", "reduction": "$'sum' if @data else 'mean'"},
    }
    assert read_head(bundle_files({"inference.json": {}, "train.json": train}, CLASSES)).head == "categorical"
    assert not marker.exists()


def test_a_training_config_that_cannot_be_read_is_passed_over(bundle_files: Files) -> None:
    root = bundle_files({"inference.json": steps(step("Activationsd", softmax=True))}, CLASSES)
    (root / "configs" / "train.yaml").write_text("loss: [", encoding="utf-8")
    (root / "configs" / "evaluate.json").write_text("[1, 2]", encoding="utf-8")
    assert read_head(root).head == "categorical"


CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, list[str], list[str]]] = {
    "sigmoid against a loss with softmax": (
        {"inference.json": steps(step("Activationsd", sigmoid=True)), "train.json": TRAIN_DICE},
        SEGMENTATION,
        [
            "postprocessing[0] Activationsd(sigmoid=True) says independent labels",
            "loss DiceCELoss(softmax=True, to_onehot_y=True)",
        ],
        ["volumes_bernoulli", "volumes"],
    ),
    "sigmoid against argmax": (
        {"inference.json": steps(step("Activationsd", sigmoid=True), step("AsDiscreted", argmax=True))},
        CLASSES,
        ["postprocessing[0] Activationsd(sigmoid=True)", "postprocessing[1] AsDiscreted(argmax=True) says classes that exclude"],
        ["bernoulli", "categorical"],
    ),
    "logits against probabilities": (
        {"inference.json": steps(step("Activationsd", sigmoid=True)), "train.json": {"loss": {"_target_": "BCELoss"}}},
        CLASSES,
        ["Activationsd(sigmoid=True) says logits", "loss BCELoss() says probabilities"],
        ["bernoulli", "bernoulli_probabilities"],
    ),
    "the metadata against a file of classes": (
        {"inference.json": steps(step("Activationsd", softmax=True), step("SaveClassificationd"))},
        SEGMENTATION,
        ["SaveClassificationd() says one answer an image", "format 'segmentation' says an answer at every voxel"],
        ["categorical", "volumes"],
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_refused_with_both_places_and_the_heads_to_choose_from(case: str, bundle_files: Files) -> None:
    configs, output, places, heads = CONTRADICTIONS[case]
    reading = read_head(bundle_files(configs, output))
    with pytest.raises(HeadError) as refused:
        reading.chosen("auto")
    said = str(refused.value)
    assert all(place in said for place in places), said
    assert " or ".join(f"head='{head}'" for head in heads) in said
    assert all(reading.chosen(head) == head for head in heads)  # the cure
    assert len(reading.sources) == 2


def test_a_segmentation_of_which_nothing_says_whether_labels_overlap_is_asked_about(bundle_files: Files) -> None:
    reading = read_head(bundle_files({"inference.json": steps(SAVE)}, SEGMENTATION))
    with pytest.raises(HeadError, match=r"head='volumes' if they do .* or head='volumes_bernoulli' if they may overlap"):
        reading.chosen("auto")


@pytest.mark.parametrize(
    ("output", "head", "guess"),
    [
        (SEGMENTATION | {"channel_def": {"0": "background", "1": "a", "2": "b"}}, "volumes", "of which there are signs only"),
        (SEGMENTATION | {"num_channels": 1}, "volumes_bernoulli", "the logit of one label"),
        (CLASSES, "auto", "classes that exclude one another"),
        (None, "auto", "classes that exclude one another"),
    ],
    ids=["background", "one output a voxel", "classes", "nothing"],
)
def test_a_guess_is_told(output: dict[str, Any] | None, head: str, guess: str, bundle_files: Files) -> None:
    reading = read_head(bundle_files({"inference.json": {}}, output))
    assert (reading.chosen("auto"), reading.certain) == (head, False)
    assert guess in reading.guess
    assert guess in reading.source("auto")


@pytest.mark.parametrize(
    ("configs", "output", "said"),
    [
        ({"inference.json": {"network_def": {"_target_": "RetinaNet"}}}, {}, "boxes of a detector"),
        ({"inference.json": {}}, {"type": "object", "format": "dict"}, "boxes or other objects"),
        ({"inference.json": {}}, {"type": "tuples", "format": "points"}, "points"),
        ({"inference.json": {}}, {"type": "feature", "format": "image"}, "features"),
        ({"inference.json": {}}, {"type": "image", "format": "magnitude"}, "an image"),
        ({"inference.json": {"network_def": {"_target_": "monai.networks.nets.DiffusionModelUNet"}}}, {}, "an image"),
    ],
    ids=["RetinaNet", "detections", "landmarks", "latents", "reconstruction", "diffusion"],
)
def test_a_network_without_such_an_answer_is_refused_with_the_reason(
    configs: dict[str, Any], output: dict[str, Any], said: str, bundle_files: Files
) -> None:
    reading = read_head(bundle_files(configs, output))
    with pytest.raises(HeadError, match=f"the network returns {said}, and not classes"):
        reading.chosen("auto")


def test_amounts_at_every_voxel_are_refused(bundle_files: Files) -> None:
    files = {"inference.json": steps(SAVE), "train.json": {"loss": {"_target_": "torch.nn.L1Loss"}}}
    with pytest.raises(HeadError, match="an amount at every voxel"):
        read_head(bundle_files(files)).chosen("auto")


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("last", "files", "head"),
    [
        (nn.Softmax(1), steps(step("AsDiscreted", argmax=True)), "probabilities"),
        (nn.Sigmoid(), steps(step("AsDiscreted", threshold=0.5)), "bernoulli_probabilities"),
        (nn.Sigmoid(), {}, "bernoulli_probabilities"),
        (nn.Softmax(1), steps(step("AsDiscreted", threshold=0.5)), "probabilities"),
    ],
)
@pytest.mark.parametrize("scripted", [False, True])
def test_an_activation_that_ends_the_network_is_seen(
    last: nn.Module, files: dict[str, Any], head: str, scripted: bool, bundle_files: Files
) -> None:
    network: Any = nn.Sequential(LINEAR, last)
    reading = read_head(bundle_files({"inference.json": files}, CLASSES), torch.jit.script(network) if scripted else network)
    assert (reading.chosen("auto"), reading.certain) == (head, True)


def test_log_probabilities_are_logits(bundle_files: Files) -> None:
    reading = read_head(bundle_files({"inference.json": {}}, CLASSES), nn.Sequential(LINEAR, nn.LogSoftmax(1)))
    assert (reading.head, reading.certain) == ("categorical", True)


def test_an_activation_in_the_network_and_one_after_it_are_refused(bundle_files: Files) -> None:
    root = bundle_files({"inference.json": steps(step("Activationsd", sigmoid=True))}, CLASSES)
    reading = read_head(root, nn.Sequential(LINEAR, nn.Sigmoid()))
    with pytest.raises(
        HeadError, match=r"Activationsd\(sigmoid=True\) says logits, network: its last layer '1' \(Sigmoid\) says"
    ):
        reading.chosen("auto")
    assert read_head(root, LINEAR).chosen("auto") == "bernoulli"  # the cure: the network without its sigmoid


def test_a_softmax_at_every_voxel_in_the_network_is_refused_with_the_cure(bundle_files: Files) -> None:
    root = bundle_files({"inference.json": steps(step("AsDiscreted", argmax=True))}, SEGMENTATION)
    with pytest.raises(HeadError, match=r"\(Softmax\) makes probabilities at every voxel .* remove it from network_def"):
        read_head(root, nn.Sequential(nn.Conv3d(1, 3, 1), nn.Softmax(1))).chosen("auto")
    assert read_head(root, nn.Sequential(nn.Conv3d(1, 3, 1))).chosen("auto") == "volumes"


class Unordered(nn.Module):
    """Makes its sigmoid last and uses it first."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(4, 3), nn.Sigmoid()


def test_the_order_in_which_layers_were_made_is_a_sign_only(bundle_files: Files) -> None:
    root = bundle_files({"inference.json": steps(step("Activationsd", softmax=True))}, CLASSES)
    assert read_head(root, Unordered()).chosen("auto") == "categorical"


def test_a_head_that_was_asked_for_is_told_beside_the_one_of_the_bundle(bundle_files: Files) -> None:
    reading = read_head(bundle_files({"inference.json": steps(step("Activationsd", sigmoid=True))}, CLASSES))
    told = reading.told("categorical")
    assert told.startswith(
        "categorical, asked for; the bundle asks for bernoulli, read from configs/inference.json: postprocessing[0]"
    )
    assert reading.told("auto").startswith("bernoulli (independent labels, one answer an image), read from ")
    assert reading.told("bernoulli") == "bernoulli, asked for"
