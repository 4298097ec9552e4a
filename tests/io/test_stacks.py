"""Thinned copies of maps: each sample is a voxel of the file, right to half a quantum, whatever the grid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_ifim.io import InputError
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import cut_planes, read_planes, write_planes
from monai_ifim.io.stacks import (
    IMAGE_SAMPLES,
    MAP_SAMPLES,
    MapStack,
    StackMap,
    described_stack,
    field_of_view,
    read_stack,
    steps_for,
    thin,
)

SHAPE, START = (91, 70, 83), (20, 69, 3)
AFFINE = np.array([[0.0, -0.9, 0.1, 4], [1.1, 0, 0, -30], [0, 0.1, 2.5, 7], [0, 0, 0, 1]])


def layers(seed: int = 0) -> list[Layer]:
    generator = np.random.default_rng(seed)
    scan = generator.integers(-1024, 3000, SHAPE).astype(np.float32)
    low = generator.normal(0.5, 2.0, SHAPE).astype(np.float32)
    high = generator.normal(0, 1, SHAPE).astype(np.float32)
    labels = generator.integers(0, 5, SHAPE).astype(np.uint8)
    return [
        Layer("source", scan, (-160.0, 240.0), "Hounsfield units"),
        Layer("labels", labels, (0.0, 4.0), ""),
        Layer("input", low, (-1.0, 1.0), "intensity"),
        Layer("high", high, (-2.0, 2.0), "intensity"),
        Layer("sensitivity", np.abs(high), (0.0, 2.5), "nats", scale=3e-12),
        Layer("eigenvector", -high, (-2.5, 2.5), "", component=2),
    ]


def voxels(layer: Layer, found: StackMap) -> Any:
    """The values of the file at the samples."""
    index = [first + step * np.arange(size) for first, step, size in zip(found.first, found.step, found.shape, strict=True)]
    return layer.values.reshape(SHAPE)[np.ix_(*index)].astype(np.float64) * layer.scale


def test_samples_are_voxels_of_the_file_to_half_a_quantum() -> None:
    given = layers()
    stack = thin(given, AFFINE, START, given[4].values)
    assert [found.kind for found in stack.maps] == [layer.kind for layer in given]
    for layer, found in zip(given, stack.maps, strict=True):
        true, said = voxels(layer, found), found.values()
        low, high = found.window
        inside = (true >= low) & (true <= high) if found.clipped else np.ones(true.shape, dtype=bool)
        assert inside.mean() > 0.9
        assert np.abs(said - true)[inside].max() <= found.quantum / 2 * (1 + 1e-6)
        if found.clipped:
            assert set(np.unique(found.levels()[~inside])) <= {0, 255}
        assert found.at_start == pytest.approx(float(layer.values[START]) * layer.scale, rel=1e-12)
    exact = [found.kind for found in stack.maps if found.exact]
    assert exact == ["source", "labels"]
    np.testing.assert_array_equal(stack.maps[0].values(), voxels(given[0], stack.maps[0]))


def test_the_most_sensitive_voxel_is_a_sample_of_each_map() -> None:
    given = layers()
    for found in thin(given, AFFINE, START, given[4].values).maps:
        assert max(found.step) > 1 or found.kind in ("source", "input")
        for index, first, step, size in zip(START, found.first, found.step, found.shape, strict=True):
            place, rest = divmod(index - first, step)
            assert rest == 0
            assert 0 <= place < size


@pytest.mark.parametrize(
    ("shape", "spacing", "most"),
    [
        ((512, 512, 120), (0.7, 0.7, 3.0), MAP_SAMPLES),
        ((512, 512, 120), (0.7, 0.7, 3.0), IMAGE_SAMPLES),
        ((3000, 2000, 1), (1, 1, 1), MAP_SAMPLES),
        ((64, 64, 64), (1, 1, 1), MAP_SAMPLES),
        ((1, 1, 2**19), (1, 1, 1), MAP_SAMPLES),
    ],
)
def test_samples_are_few_enough_and_as_even_in_mm_as_that_allows(shape: Any, spacing: Any, most: int) -> None:
    steps = steps_for(shape, spacing, most)
    count = np.prod([-(-size // step) for size, step in zip(shape, steps, strict=True)])
    assert most / 4 < count <= most
    jumps = [step * mm for size, step, mm in zip(shape, steps, spacing, strict=True) if size > 1]
    assert max(jumps) - min(jumps) <= max(spacing)
    assert all(step == 1 for size, step in zip(shape, steps, strict=True) if size == 1)


def test_the_field_of_view_is_where_the_network_saw_something() -> None:
    seen = np.zeros((9, 8, 7))
    seen[2:5, 7, 1:6] = 1e-30
    assert field_of_view(seen) == ((2, 4), (7, 7), (1, 5))
    assert field_of_view(np.zeros((3, 4, 5))) == ((0, 2), (0, 3), (0, 4))


@pytest.mark.parametrize("value", [0.0, 0.3, -1e20])
def test_a_constant_image_keeps_its_value(value: float) -> None:
    image = np.full((4, 5), value, dtype=np.float64)
    (found,) = thin([Layer("input", image, (value - 0.5, value + 0.5), "")], np.eye(4), (1, 1), image).maps
    np.testing.assert_array_equal(found.values(), image[..., None])


def test_a_stack_is_read_back_from_the_file_of_planes(tmp_path: Path) -> None:
    given = layers(3)
    stack = thin(given, AFFINE, START, given[4].values, photograph=True)
    planes = cut_planes([Layer("source", given[0].values, (-160, 240), "Hounsfield units")], AFFINE, START)
    write_planes(tmp_path / "a_planes.npz", replace(planes, stack=stack))
    found = read_planes(tmp_path / "a_planes.npz").stack
    assert found is not None
    assert json.dumps(described_stack(found)) == json.dumps(described_stack(stack))
    for one, other in zip(found.maps, stack.maps, strict=True):
        np.testing.assert_array_equal(one.levels(), other.levels())
    write_planes(tmp_path / "b_planes.npz", planes)
    assert read_planes(tmp_path / "b_planes.npz").stack is None


def small() -> MapStack:
    image = np.arange(24.0).reshape(2, 3, 4)
    return thin([Layer("input", image, (0.0, 23.0), "")], np.eye(4), (1, 2, 3), image)


@pytest.mark.parametrize(
    "harm",
    [
        lambda found: found.update(shape=[2, 3]),
        lambda found: found.update(start=[2, 0, 0]),
        lambda found: found.update(extent=[[0, 1], [0, 3], [0, 3]]),
        lambda found: found.update(affine=np.zeros((4, 4)).tolist()),
        lambda found: found["maps"][0].update(shape=[2, 3, 5]),
        lambda found: found["maps"][0].update(shape=[1, 3, 4]),
        lambda found: found["maps"][0].update(first=[1, 0, 0]),
        lambda found: found["maps"][0].update(quantum=float("inf")),
        lambda found: found["maps"][0].pop("window"),
        lambda found: found["maps"].append(dict(found["maps"][0])),
    ],
)
def test_a_damaged_stack_is_refused(harm: Any) -> None:
    stack = small()
    content = json.loads(json.dumps(described_stack(stack)))
    packed = [found.packed for found in stack.maps]
    np.testing.assert_array_equal(read_stack(content, packed).maps[0].values(), np.arange(24.0).reshape(2, 3, 4))
    harm(content)
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_stack(content, packed)


def test_a_damaged_stack_in_a_file_names_the_file(tmp_path: Path) -> None:
    stack = small()
    broken = replace(stack, maps=(replace(stack.maps[0], packed=b"nothing"),))
    planes = cut_planes([Layer("input", np.zeros((2, 3, 4)), (0, 1), "")], np.eye(4), (0, 0, 0))
    write_planes(tmp_path / "a_planes.npz", replace(planes, stack=broken))
    with pytest.raises(InputError, match=r"a_planes\.npz: not a readable record of planes"):
        read_planes(tmp_path / "a_planes.npz")
