"""Every network of `monai.networks.nets` is in the zoo, or in the list of reasons why not."""

from __future__ import annotations

import inspect

from monai.networks import nets
from torch import nn

from zoo.absent import ABSENT
from zoo.table import ZOO


def _public() -> dict[object, set[str]]:
    """What `monai.networks.nets` offers, classes of networks and functions, each with all its names."""
    offered: dict[object, set[str]] = {}
    for name, value in vars(nets).items():
        network = inspect.isclass(value) and issubclass(value, nn.Module)
        if not name.startswith("_") and (network or inspect.isfunction(value)):
            offered.setdefault(value, set()).add(name)
    return offered


def test_every_network_of_monai_is_in_the_zoo_or_has_a_reason() -> None:
    known = {name for entry in ZOO for name in entry.covers} | set(ABSENT)
    missing = [sorted(names) for names in _public().values() if not names & known]
    assert missing == [], "put them into tests/zoo/monai_classifiers.py or monai_segmenters.py, or give a reason in absent.py"


def test_no_name_is_both_in_the_zoo_and_absent_or_unknown_to_monai() -> None:
    covered = {name for entry in ZOO for name in entry.covers}
    assert covered & set(ABSENT) == set()
    assert [name for name in covered | set(ABSENT) if not hasattr(nets, name)] == []


def test_names_are_unique_and_every_source_is_there() -> None:
    names = [entry.name for entry in ZOO]
    assert len(names) == len(set(names))
    assert sum(entry.source == "timm" for entry in ZOO) >= 20
    assert sum(entry.source == "transformers" for entry in ZOO) == 4
