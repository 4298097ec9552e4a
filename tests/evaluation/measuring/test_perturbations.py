"""Directions of perturbations: where they lie, how they are spread, and that a seed brings each of them back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, IFIMError, decompose
from monai_ifim.core.projection import split
from monai_ifim.evaluation.measuring.attributions import ATTRIBUTIONS
from monai_ifim.evaluation.measuring.families import FAMILIES, families_of
from monai_ifim.evaluation.measuring.perturbations import (
    Perturbation,
    PerturbationSettings,
    build_perturbations,
    draw_seed,
    redraw,
)
from monai_ifim.evaluation.measuring.subspaces import Subspaces, split_eigenvectors

SHAPES = {"2d": (1, 7, 5), "2d-3channels": (3, 5, 7), "3d": (1, 5, 3, 4)}
KEPT, TRAILING, TWIN = 3, 2, 4
RANDOM = families_of("noise", "pixels")
SETTINGS = PerturbationSettings(draws=3, pixel_share=0.2)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """[channel, *spatial], odd and unequal."""
    chosen: tuple[int, ...] = request.param
    return chosen


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def orthonormal_rows(rows: int, shape: tuple[int, ...], seed: int) -> Tensor:
    columns, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((math.prod(shape), rows)))
    signs = (-1.0) ** np.arange(rows)  # a QR factorisation alone gives signs that another one would keep
    return torch.from_numpy((columns * signs).T.copy()).reshape(rows, *shape)


def some_subspaces(shape: tuple[int, ...]) -> Subspaces:
    rows = orthonormal_rows(KEPT + TRAILING, shape, 1)
    return Subspaces(rows[:KEPT], rows[KEPT:], orthonormal_rows(TWIN, shape, 2))


def some_attributions(shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: normal(shape, 10 + n) for n, name in enumerate(ATTRIBUTIONS)}


def build(
    shape: tuple[int, ...],
    settings: PerturbationSettings = SETTINGS,
    subspaces: Subspaces | None = None,
    attributions: dict[str, Tensor] | None = None,
    seed: int = 5,
    image: Tensor | None = None,
) -> list[Perturbation]:
    spaces = some_subspaces(shape) if subspaces is None else subspaces
    x = normal(shape, 0) if image is None else image
    high, low = (part[0] for part in split(spaces.leading[None], x[None]))
    maps = some_attributions(shape) if attributions is None else attributions
    return build_perturbations(x, high, low, spaces, maps, settings, seed)


def by_family(perturbations: list[Perturbation]) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    for perturbation in perturbations:
        found.setdefault(perturbation.family, []).append(perturbation.direction.flatten())
    return found


def share_inside(rows: Tensor, direction: Tensor) -> float:
    """|P d| of a unit direction by least squares, which needs no orthonormal rows."""
    basis = rows.flatten(1).double().numpy().T
    coefficients, *_ = np.linalg.lstsq(basis, direction.flatten().numpy(), rcond=None)
    return float(np.linalg.norm(basis @ coefficients))


def linear_decomposition(shape: tuple[int, ...], classes: int, dtype: torch.dtype, **settings: float) -> Decomposition:
    layer = nn.Linear(math.prod(shape), classes).to(dtype)
    layer.weight.data = normal((classes, math.prod(shape)), 3).to(dtype) / 4
    layer.bias.data = normal((classes,), 4).to(dtype)
    return decompose(nn.Sequential(nn.Flatten(), layer).eval(), normal((2, *shape), 0).to(dtype), **settings)


def test_every_family_is_there_with_its_draws_and_every_direction_has_unit_norm(shape: tuple[int, ...]) -> None:
    perturbations = build(shape)
    expected = [(f, d) for f in FAMILIES for d in range(SETTINGS.draws if f in RANDOM else 1)]
    assert [(p.family, p.draw) for p in perturbations] == expected
    for perturbation in perturbations:
        assert perturbation.direction.shape == shape
        assert perturbation.direction.dtype == torch.float64
        assert abs(float(perturbation.direction.norm()) - 1) < 1e-14
        assert (perturbation.seed is None) == (perturbation.family not in RANDOM)


@pytest.mark.parametrize(("family", "rows"), [("noise_high", "leading"), ("noise_trailing", "trailing"), ("noise_twin", "twin")])
def test_noise_lies_in_its_subspace(shape: tuple[int, ...], family: str, rows: str) -> None:
    for direction in by_family(build(shape))[family]:
        assert abs(share_inside(getattr(some_subspaces(shape), rows), direction) - 1) < 1e-13


def test_low_noise_is_orthogonal_to_the_leading_eigenvectors_to_rounding(shape: tuple[int, ...]) -> None:
    """Also where those are orthonormal to the rounding of single precision alone, as a network's are."""
    exact = some_subspaces(shape)
    coarse = Subspaces(exact.leading.float(), exact.trailing.float(), None)
    for spaces, given in ((exact, exact.leading), (coarse, exact.leading.float())):
        for direction in by_family(build(shape, subspaces=spaces))["noise_low"]:
            assert float((given.double().flatten(1) @ direction).abs().max()) < 4e-15


def test_low_noise_is_orthogonal_to_rounding_where_next_to_nothing_is_left_of_it() -> None:
    """One projection would leave rounding of the removed part, large beside what remains."""
    shape = (1, 23, 17)
    rows = orthonormal_rows(math.prod(shape) - 1, shape, 1)
    for seed in range(8):
        direction = redraw("noise_low", seed, Subspaces(rows, rows[:0], None), {})
        assert float((rows.flatten(1) @ direction.flatten()).abs().max()) < 4e-15


def test_low_noise_reaches_the_trailing_eigenvectors_and_what_no_eigenvector_spans(shape: tuple[int, ...]) -> None:
    spaces = some_subspaces(shape)
    direction = by_family(build(shape))["noise_low"][0]
    trailing = share_inside(spaces.trailing, direction)
    assert 0.01 < trailing < 0.9


def test_random_noise_is_spread_over_all_axes_alike() -> None:
    """A normal vector in a uniformly distributed subspace is uniform on the sphere: each squared entry has mean 1/D."""
    shape, draws = (1, 3, 5), 3000
    settings = PerturbationSettings(draws=draws, families=("noise_high", "noise_low", "noise_random"))
    directions = torch.stack(by_family(build(shape, settings))["noise_random"])
    size = math.prod(shape)
    squares = directions.square().mean(0)
    error = math.sqrt(2 * (size - 1) / (size**2 * (size + 2)) / draws)  # of the mean of draws; Beta(1/2, (D - 1)/2)
    assert float((squares - 1 / size).abs().max()) < 4 * error
    assert float(directions.mean(0).abs().max()) < 4 / math.sqrt(size * draws)


def test_high_noise_is_spread_over_the_subspace_alike() -> None:
    shape, draws = (1, 3, 5), 3000
    settings = PerturbationSettings(draws=draws, families=("noise_high", "noise_low"))
    inside = torch.stack(by_family(build(shape, settings))["noise_high"]) @ some_subspaces(shape).leading.flatten(1).T
    second_moment = inside.T @ inside / draws
    torch.testing.assert_close(second_moment, torch.eye(KEPT).double() / KEPT, rtol=0, atol=0.03)


def test_pixel_noise_stays_in_the_pixels_of_highest_absolute_attribution(shape: tuple[int, ...]) -> None:
    attributions = some_attributions(shape)
    positions = math.prod(shape[1:])
    for name in ATTRIBUTIONS:
        score = attributions[name].abs().sum(0).flatten().numpy()
        expected = set(np.argsort(-score)[: round(0.2 * positions)].tolist())
        for direction in by_family(build(shape))[f"pixels_{name}"]:
            touched = direction.reshape(shape[0], positions) != 0
            assert all(set(channel.nonzero()[:, 0].tolist()) == expected for channel in touched)


def test_pixels_of_no_attribution_get_no_noise() -> None:
    shape = (1, 7, 5)
    sparse = torch.zeros(shape)
    sparse[0, 2, 3], sparse[0, 6, 4] = -2.0, 1.0
    found = by_family(build(shape, attributions={"gradcam": sparse, "saliency": torch.zeros(shape)}))
    assert all(set(d.nonzero()[:, 0].tolist()) == {2 * 5 + 3, 6 * 5 + 4} for d in found["pixels_gradcam"])
    assert {family for family in found if family.startswith("pixels_")} == {"pixels_gradcam"}


def test_at_least_one_pixel_is_perturbed() -> None:
    settings = PerturbationSettings(draws=1, pixel_share=0.001)
    assert int((by_family(build((1, 7, 5), settings))["pixels_saliency"][0] != 0).sum()) == 1


def test_removal_ends_where_the_smaller_part_is_gone(shape: tuple[int, ...]) -> None:
    image, leading = normal(shape, 0), some_subspaces(shape).leading
    high = torch.einsum("k...,k->...", leading, torch.einsum("k...,...->k", leading, image))
    found = {p.family: p for p in build(shape) if p.family.partition("_")[0] in ("attenuate", "remove")}
    assert len(found) == 4
    end = float(high.norm())
    assert end < float((image - high).norm())
    for name in ("attenuate", "remove"):
        assert found[f"{name}_high"].largest == found[f"{name}_low"].largest == pytest.approx(end, rel=1e-12)
        torch.testing.assert_close(image + end * found[f"{name}_high"].direction, image - high)
        torch.testing.assert_close(found[f"{name}_low"].direction, -(image - high) / (image - high).norm())


def test_removal_is_limited_by_the_low_part_where_that_is_smaller() -> None:
    shape = (1, 7, 5)
    leading = some_subspaces(shape).leading
    low = normal(shape, 0)
    low -= torch.einsum("k...,k->...", leading, torch.einsum("k...,...->k", leading, low))
    found = {p.family: p for p in build(shape, image=9 * leading[0] + low / low.norm())}
    assert found["attenuate_high"].largest == pytest.approx(1.0, rel=1e-12)
    assert found["remove_low"].largest == pytest.approx(1.0, rel=1e-12)


def test_steps_go_along_the_first_eigenvector_both_ways(shape: tuple[int, ...]) -> None:
    found = by_family(build(shape))
    first = some_subspaces(shape).leading[0].flatten()
    torch.testing.assert_close(found["step_plus"][0], first, rtol=0, atol=1e-14)
    torch.testing.assert_close(found["step_minus"][0], -first, rtol=0, atol=1e-14)


def test_only_removal_has_an_end(shape: tuple[int, ...]) -> None:
    bounded = {p.family for p in build(shape) if math.isfinite(p.largest)}
    assert bounded == {"attenuate_high", "attenuate_low", "remove_high", "remove_low"}


def test_families_without_a_subspace_are_absent() -> None:
    shape = (1, 7, 5)
    rows = orthonormal_rows(KEPT, shape, 1)
    found = by_family(build(shape, subspaces=Subspaces(rows, rows[:0], None), attributions={}))
    assert {*FAMILIES} - {*found} == {"noise_trailing", "noise_twin", *(f"pixels_{name}" for name in ATTRIBUTIONS)}


def test_a_network_that_ignores_its_image_leaves_low_noise_alone() -> None:
    shape = (1, 7, 5)
    nothing = orthonormal_rows(1, shape, 1)[:0]
    assert {*by_family(build(shape, subspaces=Subspaces(nothing, nothing, None), attributions={}))} == {"noise_low"}


def test_a_leading_eigenspace_of_all_images_leaves_no_low_noise_and_nothing_to_remove() -> None:
    shape = (1, 3, 2)
    rows = orthonormal_rows(6, shape, 1)
    found = by_family(build(shape, subspaces=Subspaces(rows, rows[:0], None), attributions={}))
    assert {*found} == {"noise_high", "noise_random", "step_plus", "step_minus"}


def test_an_image_inside_the_leading_eigenspace_has_no_low_part_to_remove() -> None:
    shape = (1, 7, 5)
    leading = some_subspaces(shape).leading
    found = by_family(build(shape, image=(leading[0] - 2 * leading[1]).float()))
    assert {"attenuate_high", "remove_low"}.isdisjoint(found)


def test_redraw_gives_the_same_direction_from_the_recorded_seed(shape: tuple[int, ...]) -> None:
    spaces, attributions = some_subspaces(shape), some_attributions(shape)
    for perturbation in build(shape):
        if perturbation.seed is not None:
            again = redraw(perturbation.family, perturbation.seed, spaces, attributions, SETTINGS.pixel_share)
            assert torch.equal(again, perturbation.direction)


def test_redraw_does_not_depend_on_signs_or_on_the_basis_of_a_subspace() -> None:
    """Eigenvectors come back with other signs, or turned within a tie, on another machine."""
    shape = (1, 7, 5)
    spaces = some_subspaces(shape)
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(8).standard_normal((KEPT, KEPT)))[0])
    turned = Subspaces(torch.einsum("ij,j...->i...", turn, spaces.leading), -spaces.trailing, spaces.twin)
    for family in ("noise_high", "noise_low", "noise_trailing", "noise_random"):
        first, second = (redraw(family, 77, s, {}) for s in (spaces, turned))
        torch.testing.assert_close(first, second, rtol=0, atol=1e-14)


def test_adding_draws_or_families_changes_no_other_draw() -> None:
    shape = (1, 7, 5)
    few = build(shape, PerturbationSettings(draws=1, families=("noise_low", "noise_high")))
    many = {(p.family, p.draw): p for p in build(shape)}
    for perturbation in few:
        twin = many[perturbation.family, perturbation.draw]
        assert perturbation.seed == twin.seed
        assert torch.equal(perturbation.direction, twin.direction)


def test_seeds_of_draws_differ_and_fit_in_a_signed_integer() -> None:
    seeds = [draw_seed(seed, family, draw) for seed in range(5) for family in RANDOM for draw in range(7)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert 2**60 < max(seeds) < 2**63


def test_seed_of_a_draw_is_the_same_in_every_process_and_version() -> None:
    """Recorded seeds and published tables hang on it; Python's own hash of a string is another one in each process."""
    assert draw_seed(0, "noise_high", 0) == 6733187424603561731
    assert draw_seed(2026, "pixels_gradcam", 3) == 4170498880537673545


def test_draws_and_families_and_images_are_independent() -> None:
    shape = (1, 7, 5)
    directions = [d for seed in (5, 6) for d in by_family(build(shape, seed=seed))["noise_low"]]
    gram = torch.stack(directions) @ torch.stack(directions).T
    assert float((gram - torch.eye(len(directions)).double()).abs().max()) < 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("energy", "rank"), [(0.5, None), (0.9, None), (0.999, None), (1.0, None), (0.9, 2), (0.9, 99)])
def test_the_cut_of_eigenvectors_is_that_of_decompose(dtype: torch.dtype, energy: float, rank: int | None) -> None:
    shape = (1, 7, 5)
    whole = linear_decomposition(shape, 5, dtype, energy=1.0)
    kept = linear_decomposition(shape, 5, dtype, energy=energy, rank=rank)
    for item in range(2):
        leading, trailing = split_eigenvectors(whole, item, energy, rank)
        expected = kept.eigenvectors[item, : int(kept.rank[item])]
        torch.testing.assert_close(leading, expected, rtol=0, atol=8 * torch.finfo(dtype).eps)
        assert torch.equal(torch.cat([leading, trailing]), whole.eigenvectors[item])


def test_the_cut_leaves_padding_out() -> None:
    """A batch whose images have different ranks is padded with zero vectors."""
    shape = (1, 3, 5)

    class SomeFlat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            third = x.flatten(1)[:, 2].clamp_min(0)  # no gradient in the image whose entry is negative
            return torch.stack([x.flatten(1)[:, 0], third, torch.zeros_like(third)], dim=1)

    image = normal((2, *shape), 0).abs()
    image[1, 0, 0, 2] = -1.0
    whole = decompose(SomeFlat().eval(), image, energy=1.0)
    assert whole.eigenvectors.shape[1] == 2
    leading, trailing = split_eigenvectors(whole, 1, 1.0)
    assert (leading.shape[0], trailing.shape[0]) == (1, 0)
    assert abs(float(leading.norm()) - 1) < 1e-12


def test_subspaces_of_a_decomposition_in_single_precision_fit_its_parts() -> None:
    shape = (1, 7, 5)
    kept = linear_decomposition(shape, 5, torch.float32, rank=2)
    whole = linear_decomposition(shape, 5, torch.float32, energy=1.0)
    spaces = Subspaces(*split_eigenvectors(whole, 1, rank=2))
    built = build_perturbations(kept.image[1], kept.high[1], kept.low[1], spaces, {}, SETTINGS, seed=1)
    assert {p.family for p in built} == {*FAMILIES} - {"noise_twin", *(f"pixels_{name}" for name in ATTRIBUTIONS)}


def test_parts_of_another_cut_are_refused() -> None:
    """The decomposition of energy 1 splits the image by all eigenvectors, not by those that are kept."""
    whole = linear_decomposition((1, 7, 5), 5, torch.float32, energy=1.0)
    spaces = Subspaces(*split_eigenvectors(whole, 1, rank=2))
    with pytest.raises(IFIMError, match="not the parts of this image"):
        build_perturbations(whole.image[1], whole.high[1], whole.low[1], spaces, {}, SETTINGS, seed=1)


def test_a_decomposition_that_lacks_eigenvectors_is_refused() -> None:
    with pytest.raises(IFIMError, match=r"energy=1\.0"):
        split_eigenvectors(linear_decomposition((1, 7, 5), 5, torch.float32, rank=2), 1, rank=1)


def test_parts_that_do_not_add_up_to_the_image_are_refused() -> None:
    image, spaces = normal((1, 7, 5), 0), some_subspaces((1, 7, 5))
    high, _ = split(spaces.leading[None], image[None])
    with pytest.raises(IFIMError, match="not the parts of this image"):
        build_perturbations(image, high[0], image, spaces, {}, SETTINGS, seed=1)


def test_parts_of_another_image_are_refused() -> None:
    whole = linear_decomposition((1, 7, 5), 5, torch.float32, energy=1.0)
    spaces = Subspaces(*split_eigenvectors(whole, 1, energy=1.0))
    with pytest.raises(IFIMError, match="not the parts of this image"):
        build_perturbations(whole.image[0], whole.high[1], whole.low[1], spaces, {}, SETTINGS, seed=1)


def test_orthonormalising_keeps_each_nested_span_and_the_signs() -> None:
    shape = (1, 7, 5)
    exact = orthonormal_rows(KEPT + TRAILING, shape, 1)
    noisy = exact + 1e-4 * normal(exact.shape, 9)
    made = Subspaces(noisy[:KEPT], noisy[KEPT:], noisy[:1])
    rows = torch.cat([made.leading, made.trailing]).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(5).double(), rtol=0, atol=1e-14)
    for j in range(1, 6):
        assert share_inside(noisy[:j], rows[j - 1]) == pytest.approx(1.0, abs=1e-12)
    assert float((rows * exact.flatten(1)).sum(1).min()) > 0.99


def test_the_given_subspaces_are_left_as_they_were() -> None:
    rows = orthonormal_rows(KEPT, (1, 7, 5), 1).float()
    before = rows.clone()
    Subspaces(rows, rows[:0], rows)
    assert torch.equal(rows, before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relative_norms": (0.1, 0.2)}, "relative_norms"),
        ({"relative_norms": (0.0,)}, "relative_norms"),
        ({"relative_norms": (0.0, 0.2, 0.2)}, "relative_norms"),
        ({"relative_norms": (0.0, math.inf)}, "relative_norms"),
        ({"relative_norms": (0.0, math.nan)}, "relative_norms"),
        ({"draws": 0}, "draws"),
        ({"draws": 1.5}, "draws"),
        ({"draws": True}, "draws"),
        ({"pixel_share": 0.0}, "pixel_share"),
        ({"pixel_share": 1.5}, "pixel_share"),
        ({"pixel_share": math.nan}, "pixel_share"),
        ({"families": ("noise_high", "noise_low", "noise_medium")}, "name each once"),
        ({"families": ("noise_high", "noise_low", "noise_low")}, "name each once"),
        ({"families": ("noise_high", "step_plus")}, "noise_low"),
    ],
)
def test_settings_that_make_no_experiment_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(IFIMError, match=words):
        replace(PerturbationSettings(), **changes)


def test_settings_turn_sequences_into_tuples() -> None:
    settings = PerturbationSettings(relative_norms=[0, 1], families=["noise_low", "noise_high"])
    assert settings.relative_norms == (0.0, 1.0)
    assert settings.families == ("noise_low", "noise_high")
    assert settings == PerturbationSettings(relative_norms=(0.0, 1.0), families=("noise_low", "noise_high"))


def test_rows_that_are_not_orthonormal_are_refused() -> None:
    rows = orthonormal_rows(KEPT, (1, 7, 5), 1)
    padded = torch.cat([rows, torch.zeros_like(rows[:1])])
    for bad in (2 * rows, padded, rows * torch.nan):
        with pytest.raises(IFIMError, match="not orthonormal"):
            Subspaces(bad, rows[:0], None)
    with pytest.raises(IFIMError, match="not orthonormal"):
        Subspaces(rows, rows[:1], None)


def test_subspaces_of_different_images_are_refused() -> None:
    rows = orthonormal_rows(KEPT, (1, 7, 5), 1)
    with pytest.raises(IFIMError, match="of one image"):
        Subspaces(rows, rows[:0], orthonormal_rows(KEPT, (1, 5, 7), 1))


def test_an_attribution_that_does_not_fit_is_refused() -> None:
    shape = (1, 7, 5)
    for bad in (torch.zeros(1, 5, 7), torch.full(shape, torch.nan)):
        with pytest.raises(IFIMError, match="attribution"):
            build(shape, attributions={"saliency": bad})


def test_redraw_refuses_what_is_not_drawn_or_not_defined() -> None:
    spaces = some_subspaces((1, 7, 5))
    with pytest.raises(IFIMError, match="drawn from no seed"):
        redraw("step_plus", 1, spaces, {})
    with pytest.raises(IFIMError, match="not defined"):
        redraw("pixels_gradcam", 1, spaces, {})


@pytest.mark.parametrize(("seed", "draw"), [(-1, 0), (0, -1)])
def test_negative_seeds_are_refused(seed: int, draw: int) -> None:
    with pytest.raises(IFIMError, match="from 0 on"):
        draw_seed(seed, "noise_low", draw)
