"""What the network itself says of its outputs: its kind, and an activation that ends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from monai_ifim.adapt.head_reading.components import Component
from monai_ifim.adapt.head_reading.statement import Relation, Scale, Statement
from monai_ifim.core.heads.outputs import last_operation

_KINDS = {  # of MONAI's networks that have no class probabilities
    "RetinaNet": "boxes of a detector",
    "RetinaNetDetector": "boxes of a detector",
    "AutoEncoder": "an image",
    "VarAutoEncoder": "an image",
    "AutoencoderKL": "an image",
    "VQVAE": "an image",
    "VQ_VAE": "an image",
    "DiffusionModelUNet": "an image",
    "ControlNet": "an image",
    "SPADEAutoencoderKL": "an image",
    "SPADEDiffusionModelUNet": "an image",
    "Generator": "an image",
    "LocalNet": "a deformation",
    "GlobalNet": "a deformation",
    "RegUNet": "a deformation",
    "VoxelMorph": "a deformation",
    "VoxelMorphUNet": "a deformation",
}
_LAYERS: dict[type[nn.Module], tuple[Relation, Scale]] = {
    nn.Sigmoid: ("independent", "probabilities"),
    nn.Softmax: ("exclusive", "probabilities"),
    nn.Softmax2d: ("exclusive", "probabilities"),
    nn.LogSoftmax: ("exclusive", "logits"),  # log-probabilities are logits
}
_OPERATIONS: dict[str, Relation] = {"sigmoid": "independent", "softmax": "exclusive"}


def said_by_definition(components: Iterable[Component]) -> Iterator[Statement]:
    """Statements of `network_def`: kinds of networks that give no class probabilities."""
    for one in components:
        if one.path == ("network_def",) and one.name in _KINDS:
            yield Statement(one.place, no_answer=_KINDS[one.name])


def said_by_layers(network: Any) -> Iterator[Statement]:
    """The statement of a sigmoid or softmax that ends the network.

    Certain where autograd's graph of a TorchScript, or nested Sequentials, show that nothing follows; else weak: modules need not
    run in the order in which they were made. What a run sees of the output's own graph refuses a wrong one.
    """
    if isinstance(network, torch.jit.ScriptModule):
        relation = _OPERATIONS.get(last_operation(torch.empty(0), network) or "")
        if relation is not None:
            yield Statement("models/model.ts: its last operation", relation=relation, scale="probabilities")
        return
    if not isinstance(network, nn.Module):
        return
    name, layer, sure = "", network, True
    while children := list(layer.named_children()):
        sure = sure and isinstance(layer, nn.Sequential)
        name, layer = (f"{name}.{children[-1][0]}" if name else children[-1][0]), children[-1][1]
    said = next((said for kind, said in _LAYERS.items() if isinstance(layer, kind)), None)
    if said is not None and name:
        yield Statement(f"network: its last layer '{name}' ({type(layer).__name__})", *said, weak=not sure)
