"""The base class of heads: from a network's output to a square root of the Fisher information of that output.

A head turns the output z of the network at one image into a matrix S with S S^T = E[grad_z log p grad_z log p^T], so that
the Fisher information of the image is F = (J^T S)(J^T S)^T with J = dz/dx. Each column of S is kept as a unit cotangent
and a float64 scale beside it, so that the scale of the answer neither under- nor overflows in the backward pass.

A new head is a subclass of `Head` in a file of its own. Where it needs no parameters, a line in `monai_ifim.options.HEADS`
gives it a name that `decompose(head=...)`, the command line, the overlays and `--from` know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.outputs import differentiated
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.options import HEADS

Answers = Literal["class", "label", "output"]
Values = Literal["probability", "mean_probability", "mean"]
LabelRule = Literal["largest", "above half"]
UNDESCRIBED = "undescribed"  # key of a parameter that is not plain data


class Head(ABC):
    """The likelihood p(y | z) behind a network's output z [B, C].

    spatial: True if z is a map [B, C, *spatial]. columns_at_every_voxel: True if the square root has columns for each voxel of
    it, so many that only the matrix-free method computes them; a spatial head has, unless it states False. answers: what one of
    the C answers is called. values: what `probabilities` holds for each answer, "mean_probability" being the mean over the voxels
    of a head with columns at each. label_rule: how the label of a voxel of the map follows from its probabilities (`label_map`);
    None: the output is no map of labels.
    """

    name: ClassVar[str]
    spatial: ClassVar[bool] = False
    columns_at_every_voxel: ClassVar[bool] = False
    answers: ClassVar[Answers] = "output"
    values: ClassVar[Values] = "probability"
    label_rule: ClassVar[LabelRule | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "spatial" in vars(cls) and "columns_at_every_voxel" not in vars(cls):
            cls.columns_at_every_voxel = cls.spatial
        if cls.columns_at_every_voxel and cls.values == "probability":
            cls.values = "mean_probability"

    @property
    def whole(self) -> Head:
        """The head of the whole answer: this one, unless it asks about part of the answer of another."""
        return self

    def part(self, items: slice | Tensor) -> Head:
        """The head for some images of the batch that it was made for."""
        return self

    def log_odds(self, output: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """Log-odds t [B] of one class or label against the rest, and dt/d output [B, C], both float64.

        Raises HeadError for a head without them.
        """
        raise HeadError(f"head {self.name!r} states no log-odds of a single class: leave answer= out, or define its log_odds.")

    @abstractmethod
    def square_root(self, output: Tensor) -> SquareRoot:
        """Square root of the Fisher information of `output` [B, C]."""

    @abstractmethod
    def probabilities(self, output: Tensor) -> Tensor:
        """Probability of each class (for regression: the mean), [B, C] float64."""

    @abstractmethod
    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Kullback-Leibler divergence from `output` to `moved`, [B] float64, in nats, exact for tiny values too."""

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """Derivative of each answer along changes [B, m, *output] of the output, [B, m, C] float64.

        Of the logarithm of its probability; of a head whose values are means, of these; of maps, of the mean over the voxels.
        Heads without a formula of their own take central differences of `probabilities`, good to about eight digits.
        """
        return differentiated(lambda moved: _answers(self, moved), output, changes)

    def logits(self, output: Tensor) -> Tensor:
        """The output as logits [B, C]; only heads on probabilities differ from the identity."""
        return output

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise `HeadError` if `output` [B, C] cannot come from this head.

        operation: "sigmoid" or "softmax" where that is known to have made the output.
        """
        return

    def describe(self) -> dict[str, Any]:
        """Name and parameters as plain data: the public attributes of the object.

        A head without a line in `options.HEADS` names its class too. A parameter that is not plain data is named by its type
        under "undescribed"; such a head equals no other in `Settings`.
        """
        own = f"{type(self).__module__}:{type(self).__qualname__}"
        named = own == f"{__package__}.{HEADS.get(self.name)}"
        parameters = {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}
        return {"name": self.name} | ({} if named else {"class": own}) | parameters

    @classmethod
    def from_description(cls, parameters: dict[str, Any]) -> Self:
        """The head with the parameters that `describe` gave; raises HeadError if they do not fit."""
        try:
            return cls(**parameters)
        except TypeError as error:
            raise HeadError(f"head {cls.name!r} cannot be made from the parameters {sorted(parameters)} ({error}).") from error


def _answers(head: Head, output: Tensor) -> Tensor:
    """The values that `Head.answer_changes` differentiates, [B, C] float64."""
    values = head.probabilities(output)
    values = values.flatten(2).mean(2) if values.ndim > 2 else values
    return values.clamp_min(torch.finfo(values.dtype).tiny).log() if head.values == "probability" else values


def _plain(value: Any) -> Any:
    """Numbers, text, lists and dictionaries; tensors as nested lists."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return {UNDESCRIBED: f"{type(value).__module__}.{type(value).__qualname__}"}
