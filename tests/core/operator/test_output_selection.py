"""Logits are read from whatever a network returns where that is certain; else the entries are listed, and a path names one."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import NetworkError, decompose
from monai_ifim.core.operator.output_selection import OutputSelection

Aux = namedtuple("Aux", ["aux", "logits"])


@dataclass
class Answer:
    features: Tensor
    pred: Tensor
    note: str = "kept"


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """As those of transformers: a dataclass and an ordered mapping of the fields that are not None."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        super().__init__({f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None})


B = 3
IMAGE = torch.zeros(B, 1, 6, 5)
Z = torch.rand(B, 4)  # the logits
OTHER = torch.rand(B, 4)
WIDE = torch.rand(B, 9)
TOKENS = torch.rand(B, 7, 9)
MAP = torch.rand(B, 2, 6, 5)
HALF = torch.rand(B, 2, 3, 3)

CERTAIN: dict[str, tuple[Any, str | None]] = {
    "one tensor": (Z, None),
    "tuple of logits and hidden states, as MONAI's ViT": ((Z, [TOKENS, TOKENS]), "0"),
    "list of one": ([Z], "0"),
    "mapping of one, whatever its name": ({"diagnosis": Z}, "diagnosis"),
    "mapping": ({"features": WIDE, "logits": Z}, "logits"),
    "capitals": ({"Features": WIDE, "Logits": Z}, "Logits"),
    "logits before other names": ({"pred": OTHER, "logits": Z}, "logits"),
    "class numbers beside": ({"pred": Z.argmax(1), "scores": Z}, "scores"),
    "named tuple whose first field is another": (Aux(OTHER, Z), "logits"),
    "dataclass": (Answer(WIDE, Z), "pred"),
    "ModelOutput": (ModelOutput(torch.tensor(0.5), Z, (TOKENS, TOKENS)), "logits"),
    "ModelOutput of one": (ModelOutput(logits=Z), "logits"),
    "object with attributes": (SimpleNamespace(features=WIDE, out=Z), "out"),
    "nested": ({"features": WIDE, "model": {"output": {"logits": Z}}}, "model.output.logits"),
    "in a tuple": ((ModelOutput(logits=Z), WIDE), "0.logits"),
    "tuple under a name": ({"out": (Z, [TOKENS]), "features": WIDE}, "out.0"),
    "the name nearest to the top": ({"logits": Z, "auxiliary": {"logits": OTHER}}, "logits"),
    "one entry under a name": ({"logits": {"diagnosis": Z}, "out": OTHER}, "logits.diagnosis"),
    "axes of length one": ((Z[..., None, None], MAP), "0"),
}


@pytest.mark.parametrize("kind", CERTAIN)
def test_logits_are_found_where_they_are_certain(kind: str) -> None:
    output, path = CERTAIN[kind]
    select = OutputSelection()
    torch.testing.assert_close(select(output, IMAGE, spatial=False).reshape(B, -1), Z, rtol=0, atol=0)
    assert select.chosen == path


@pytest.mark.parametrize("kind", [kind for kind, (_, path) in CERTAIN.items() if path is not None])
def test_path_that_was_chosen_names_the_same_entry(kind: str) -> None:
    output, path = CERTAIN[kind]
    assert path is not None
    for key in (path, int(path)) if path.isdecimal() else (path,):
        select = OutputSelection(key)
        torch.testing.assert_close(select(output, IMAGE, spatial=False).reshape(B, -1), Z, rtol=0, atol=0)
        assert select.chosen == path


UNCERTAIN: dict[str, tuple[Any, str]] = {
    "two of the shape": ((Z, OTHER), r"'0': tensor \(3, 4\) float32, '1': tensor \(3, 4\) float32"),
    "logits and features in a tuple": ((Z, WIDE), r"'1': tensor \(3, 9\)"),
    "features behind a map": ((MAP, WIDE), r"'0': tensor \(3, 2, 6, 5\) float32, '1'"),
    "mapping without a known name": ({"pooler_output": WIDE, "last_hidden_state": TOKENS}, r"'pooler_output': tensor \(3, 9\)"),
    "two names": ({"pred": Z, "scores": OTHER}, "one of 'pred'"),
    "logits of two heads": ({"logits": {"diagnosis": Z, "grade": OTHER}, "out": Z}, r"one of 'logits\.diagnosis'"),
    "features under a name": ({"output": {"features": WIDE, "map": MAP}}, r"'output\.features'"),
    "list of logits": ({"logits": [Z, OTHER]}, r"'logits\.0'.*'logits\.1'"),
    "logits at every token": ({"logits": TOKENS, "scores": WIDE}, r"'logits': tensor \(3, 7, 9\)"),
    "first field of a dataclass": (Aux(OTHER, Z)._asdict() | {"logits": None, "embedding": Z}, "'aux'.*'embedding'"),
}


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_uncertain_outputs_are_listed(kind: str) -> None:
    output, listed = UNCERTAIN[kind]
    with pytest.raises(NetworkError, match=f"none is certain to be the logits: name it with output_key.*{listed}"):
        OutputSelection()(output, IMAGE, spatial=False)


HEADS = {"heads": {"diagnosis": Z, "grade": OTHER}, "a.b": {"c": Z}, "many": [WIDE, (OTHER, Z)], 7: Z}


@pytest.mark.parametrize("key", ["heads.diagnosis", "a.b.c", "a.b", "many.1.1", "many.-1.-1", 7, "7"])
def test_key_is_a_path(key: str | int) -> None:
    assert OutputSelection(key)(HEADS, IMAGE, spatial=False) is Z


@pytest.mark.parametrize("key", ["heads.diagnoses", "many.2", "many.-3", 1, "heads.diagnosis.0", "", "many.x"])
def test_key_of_nothing_is_refused_with_the_entries(key: str | int) -> None:
    with pytest.raises(NetworkError, match=r"(none of the network's outputs; name|with output_key,) one of 'heads\.diagnosis'"):
        OutputSelection(key)(HEADS, IMAGE, spatial=False)


def test_key_of_a_group_finds_the_logits_in_it() -> None:
    select = OutputSelection("second")
    assert select({"first": {"logits": OTHER}, "second": {"features": WIDE, "logits": Z}}, IMAGE, spatial=False) is Z
    assert select.chosen == "second.logits"


def test_key_for_a_network_of_one_tensor_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"returns one tensor, tensor \(3, 4\) float32: leave it out"):
        OutputSelection("logits")(Z, IMAGE, spatial=False)


MAPS: dict[str, tuple[Any, str | None]] = {
    "one map": (MAP, None),
    "mapping of torchvision": (OrderedDict(out=MAP, aux=MAP + 1), "out"),
    "deep supervision, finest first": ([MAP, HALF, HALF[..., :2]], "0"),
    "deep supervision, finest last": ((HALF, MAP), "1"),
    "stack of one": (MAP[:, None], "0"),
    "map and features": ((MAP, TOKENS), "0"),
}


@pytest.mark.parametrize("kind", MAPS)
def test_map_of_the_image_s_size_is_found(kind: str) -> None:
    output, path = MAPS[kind]
    select = OutputSelection()
    torch.testing.assert_close(select(output, IMAGE, spatial=True), MAP, rtol=0, atol=0)
    assert select.chosen == path


@pytest.mark.parametrize("output", [torch.stack([MAP, MAP + 1], 1), (MAP, MAP + 1), {"recon": MAP, "z": WIDE}, (TOKENS, MAP)])
def test_one_of_several_maps_has_to_be_named(output: Any) -> None:
    with pytest.raises(NetworkError, match="none is certain"):
        OutputSelection()(output, IMAGE, spatial=True)


@pytest.mark.parametrize("key", [1, "1", -1])
def test_map_of_a_stack_is_named_by_its_number(key: str | int) -> None:
    torch.testing.assert_close(OutputSelection(key)(torch.stack([MAP + 1, MAP], 1), IMAGE, spatial=True), MAP)
    with pytest.raises(NetworkError, match="'0': tensor.*'1': tensor"):
        OutputSelection(2)(torch.stack([MAP, MAP], 1), IMAGE, spatial=True)


def test_outputs_that_hold_themselves_end() -> None:
    endless: dict[str, Any] = {"logits": Z, "features": WIDE}
    endless["self"] = endless
    assert OutputSelection()(endless, IMAGE, spatial=False) is Z


class _Wrapped(nn.Module):
    def __init__(self, network: nn.Module, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.after = network, after
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.after(self.network(x))


@pytest.mark.parametrize(
    ("after", "key", "path"),
    [
        (lambda z: z, None, None),
        (lambda z: (z, [z[:, :, None].expand(-1, -1, 5)]), None, "0"),
        (lambda z: Aux(z.square(), z), None, "logits"),
        (lambda z: {"heads": {"a": z.square(), "b": z}}, "heads.b", "heads.b"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "matrix_free"])
def test_decomposition_is_that_of_the_entry_and_the_record_says_which(
    cnn: Callable[..., nn.Sequential],
    image: Tensor,
    after: Callable[[Tensor], Any],
    key: str | None,
    path: str | None,
    method: Any,
) -> None:
    network = cnn((1, 7, 5), 4).double()
    found = decompose(_Wrapped(network, after), image, output_key=key, locality=True, method=method)
    torch.testing.assert_close(found.eigenvalues, decompose(network, image, method=method).eigenvalues)
    assert found.record["output"] == path


BROKEN: dict[str, tuple[Callable[[Tensor], Any], str, Callable[[Any], Any] | None]] = {
    "complex": (lambda z: torch.complex(z, z), r"complex128: return real logits, for instance their \.abs", lambda z: z.abs()),
    "sparse": (lambda z: z.to_sparse(), r"float64 sparse_coo: return a dense tensor, output", lambda z: z.to_dense()),
    "sparse in a mapping": (lambda z: {"logits": z.to_sparse()}, "dense tensor", lambda z: {"logits": z["logits"].to_dense()}),
    "list of arrays": (lambda z: [z.detach().numpy()], "returned list, not a tensor", None),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_output_of_another_kind_is_refused_and_the_cure_helps(
    cnn: Callable[..., nn.Sequential], image: Tensor, kind: str
) -> None:
    spoil, message, cure = BROKEN[kind]
    network = cnn((1, 7, 5), 4).double()
    with pytest.raises(NetworkError, match=message):
        decompose(_Wrapped(network, spoil), image)
    if cure is not None:
        decompose(_Wrapped(network, lambda z: cure(spoil(z))), image, rank=1)
