"""Every field of a decomposition against the dense float64 matrix, over the whole table of cases."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from core_cases import Case
from monai_ifim.core import decompose, locality_radius
from monai_ifim.core.dense import top_eigenpairs
from monai_ifim.core.settings import selection


def _projector(vectors: Tensor) -> Tensor:
    """U^T U of vectors [k, channel, *spatial] or [k, D], float64."""
    rows = vectors.flatten(1).double()
    return rows.T @ rows


def test_eigenvalues_are_those_of_the_dense_matrix(case: Case) -> None:
    for found, rank, fisher in zip(case.whole.eigenvalues, case.whole.rank, case.fisher, strict=True):
        truth, _ = top_eigenpairs(fisher, case.rank)
        assert int(rank) == case.rank
        torch.testing.assert_close(found, truth, rtol=case.tolerance, atol=0)


def test_all_of_the_spectrum_is_reported_even_where_little_is_kept(case: Case) -> None:
    torch.testing.assert_close(case.leading.spectrum, case.whole.eigenvalues, rtol=case.tolerance, atol=0)


def test_kept_projector_is_that_of_the_dense_matrix(case: Case) -> None:
    for vectors, rank, fisher in zip(case.leading.eigenvectors, case.leading.rank, case.fisher, strict=True):
        _, truth = top_eigenpairs(fisher, int(rank))
        assert 1 <= int(rank) <= case.rank
        torch.testing.assert_close(_projector(vectors), _projector(truth), rtol=0, atol=case.tolerance)


def test_whole_projector_is_that_of_the_dense_matrix(case: Case) -> None:
    for vectors, fisher in zip(case.whole.eigenvectors, case.fisher, strict=True):
        _, truth = top_eigenpairs(fisher, case.rank)
        torch.testing.assert_close(_projector(vectors), _projector(truth), rtol=0, atol=case.tolerance)


def test_each_eigenvector_solves_the_dense_eigenproblem_and_has_unit_length(case: Case) -> None:
    for vectors, values, fisher in zip(case.whole.eigenvectors, case.whole.eigenvalues, case.fisher, strict=True):
        rows = vectors.flatten(1).double()
        torch.testing.assert_close(rows @ fisher, values[:, None] * rows, rtol=0, atol=case.tolerance * float(values[0]))
        torch.testing.assert_close(rows @ rows.T, torch.eye(case.rank).double(), rtol=0, atol=case.tolerance)


def test_trace_is_that_of_the_dense_matrix(case: Case) -> None:
    truth = torch.stack([fisher.trace() for fisher in case.fisher])
    torch.testing.assert_close(case.leading.trace, truth, rtol=case.tolerance, atol=0)


def test_sensitivity_is_the_diagonal_of_the_dense_matrix(case: Case) -> None:
    truth = torch.stack([fisher.diagonal() for fisher in case.fisher]).reshape(case.image.shape)
    atol = case.tolerance * float(truth.max())
    torch.testing.assert_close(case.leading.sensitivity, truth, rtol=case.tolerance, atol=atol)


def test_high_is_the_dense_projector_applied_to_the_image(case: Case) -> None:
    for high, x, rank, fisher in zip(case.leading.high, case.image, case.leading.rank, case.fisher, strict=True):
        truth = _projector(top_eigenpairs(fisher, int(rank))[1]) @ x.flatten().double()
        torch.testing.assert_close(high.flatten().double(), truth, rtol=0, atol=5 * case.tolerance)


def test_high_and_low_add_up_to_the_image_and_are_orthogonal(case: Case) -> None:
    high, low = case.leading.high, case.leading.low
    eps = torch.finfo(case.dtype).eps
    torch.testing.assert_close(high + low, case.image, rtol=0, atol=4 * eps * float(case.image.abs().max()))
    assert float((high * low).flatten(1).sum(1).abs().max()) < case.tolerance * float(case.image.square().sum())


def test_projecting_another_image_applies_the_same_dense_projector(case: Case) -> None:
    other = case.image.flip(0) + 1
    high, low = case.leading.project(other)
    for b, (rank, fisher) in enumerate(zip(case.leading.rank, case.fisher, strict=True)):
        truth = _projector(top_eigenpairs(fisher, int(rank))[1]) @ other[b].flatten().double()
        torch.testing.assert_close(high[b].flatten().double(), truth, rtol=0, atol=5 * case.tolerance)
    torch.testing.assert_close(high + low, other)


def test_energy_is_the_share_of_the_dense_trace_and_one_component_fewer_would_miss_it(case: Case) -> None:
    for energy, rank, fisher in zip(case.leading.energy, case.leading.rank, case.fisher, strict=True):
        share = top_eigenpairs(fisher, int(rank))[0].cumsum(0) / fisher.trace()
        torch.testing.assert_close(energy, share[-1], rtol=case.tolerance, atol=0)
        assert float(share[-1]) >= 0.7
        assert int(rank) == 1 or float(share[-2]) < 0.7


def test_predictions_are_those_of_the_network(case: Case) -> None:
    logits = case.logits_network(case.image).detach().double()
    link = {"categorical": torch.softmax, "bernoulli": lambda z, _: z.sigmoid(), "gaussian": lambda z, _: z}
    truth = link[case.reference_head](logits, 1)
    torch.testing.assert_close(case.leading.probabilities, truth, rtol=case.tolerance, atol=0)


def test_results_have_the_promised_shapes_and_dtypes(case: Case) -> None:
    d = case.whole
    assert d.eigenvectors.shape == (2, case.rank, *case.shape)
    assert d.high.shape == d.low.shape == d.sensitivity.shape == case.image.shape
    assert {d.high.dtype, d.low.dtype, d.eigenvectors.dtype, d.logits.dtype} == {case.dtype}
    assert {d.eigenvalues.dtype, d.trace.dtype, d.sensitivity.dtype, d.probabilities.dtype} == {torch.float64}
    assert not any(t.requires_grad for t in (d.eigenvectors, d.high, d.low, d.logits, d.sensitivity, d.probabilities))


def test_probability_network_gives_the_decomposition_of_its_logits_network(probability_case: Case) -> None:
    case = probability_case
    d = case.whole
    truth = decompose(case.logits_network, case.image, head=case.reference_head, energy=1.0)
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=case.tolerance, atol=0)
    torch.testing.assert_close(d.eigenvectors, truth.eigenvectors, rtol=0, atol=10 * case.tolerance)
    shift = truth.logits - d.logits  # a softmax forgets a common shift of its logits
    if case.reference_head == "categorical":
        shift = shift - shift.mean(1, keepdim=True)
    torch.testing.assert_close(shift, torch.zeros_like(shift), rtol=0, atol=case.tolerance)


def test_probability_network_has_the_locality_radius_of_its_logits_network(probability_case: Case) -> None:
    case = probability_case
    truth = decompose(case.logits_network, case.image, head=case.reference_head, energy=1.0)
    radii = locality_radius(case.network, case.whole), locality_radius(case.logits_network, truth)
    torch.testing.assert_close(*radii, rtol=0.07, atol=0)


def test_record_tells_settings_and_products_as_plain_data(case: Case) -> None:
    record = case.leading.record
    assert json.loads(json.dumps(record)) == record
    assert selection(record["settings"]) == {"energy": 0.7}
    assert record["jacobian_products"] == case.rank
    assert record["dtype"] == str(case.dtype).removeprefix("torch.")
    assert record["units"] == "nats per (unit of the image)^2"
