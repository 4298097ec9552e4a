"""F pulled back to named coordinates, against T^T F T of the dense matrix, closed forms and differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core_cases import CASES, Case, linear_network, smooth_cnn
from monai_ifim import Decomposition, decompose
from monai_ifim.core import GaussianLowPass, IFIMError, NoiseLevel
from monai_ifim.core.coordinates import Family, Place
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.finite_differences import sensitivity_along


class Along(Family):
    """Moves along given images, which bend by the square of the step."""

    kind = "along"

    def __init__(self, images: Tensor, scale: float = 1.0, bend: float = 0.0, name: str = "c") -> None:
        self.images, self.scale, self.bend, self.name = images, scale, bend, name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}{i}" for i in range(len(self.images)))

    @property
    def units(self) -> tuple[str, ...]:
        return ("unit",) * len(self.images)

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        return self.scale * self.images[start:stop].to(image)

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        steps = torch.tensor(theta, dtype=torch.float64) * self.scale
        steps = steps + self.bend * steps.square()
        return (image.double() + torch.einsum("m,m...->...", steps, self.images.double())).to(image)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "scale": self.scale}


def images(shape: tuple[int, ...], count: int = 4, seed: int = 5) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_probabilities(case: Case, x: Tensor) -> Tensor:
    """Of the answers of one image [channel, *spatial], by autograd's own functions; of a regression the mean."""
    z = case.logits_network(x[None])[0].double()
    if case.reference_head == "gaussian":
        return z
    return z.log_softmax(0) if case.reference_head == "categorical" else nn.functional.logsigmoid(z)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_pullback_is_that_of_the_dense_matrix_and_the_gradient_that_of_autograd(case: Case) -> None:
    family = Along(images(case.shape))
    d = decompose(case.network, case.image, head=case.likelihood, energy=1.0, coordinates=[family])
    found, flat = d.coordinates, family.images.flatten(1).to(case.image.dtype).double()
    assert found is not None
    assert d.record["coordinates"]["way"] == "columns"
    assert (found.names, found.units) == (("c0", "c1", "c2", "c3"), ("unit",) * 4)
    for b, fisher in enumerate(case.fisher):
        expected = flat @ fisher @ flat.T
        torch.testing.assert_close(found.fisher[b], expected, rtol=0, atol=case.tolerance * float(expected.abs().max()))
        jacobian = torch.func.jacrev(lambda x: log_probabilities(case, x))(case.image[b]).flatten(1).double()
        slopes = jacobian @ flat.T
        torch.testing.assert_close(found.gradient[b], slopes, rtol=0, atol=10 * case.tolerance * float(slopes.abs().max()))
    torch.testing.assert_close(found.tangent_norms[0], flat.norm(dim=1))
    assert not bool(found.fisher_error.any())


@pytest.mark.parametrize("outputs", [2, 5])
def test_a_linear_network_and_a_linear_family_give_the_closed_form(outputs: int) -> None:
    shape = (2, 5, 4, 3)
    network = linear_network(shape, outputs).double()
    x, family = images(shape, 2, seed=1), Along(images(shape, 6))
    found = decompose(network, x, coordinates=[family]).coordinates
    assert found is not None
    weight = network[1].weight.detach()
    moved = weight @ family.images.flatten(1).T
    for b in range(2):
        p = network(x)[b].softmax(0).detach()
        expected = moved.T @ (torch.diag(p) - torch.outer(p, p)) @ moved
        assert float((found.fisher[b] - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
        torch.testing.assert_close(found.gradient[b], moved - p @ moved, rtol=1e-10, atol=1e-12)


def test_coordinates_along_the_eigenvectors_have_the_eigenvalues_on_their_diagonal() -> None:
    case = CASES[0]
    whole = case.whole
    for b in range(2):
        family = Along(whole.eigenvectors[b])
        found = decompose(case.network, case.image[b : b + 1], head=case.likelihood, coordinates=[family]).coordinates
        assert found is not None
        torch.testing.assert_close(found.fisher[0], torch.diag(whole.eigenvalues[b]), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.eigenvalues[0], whole.eigenvalues[b])
        torch.testing.assert_close(found.eigenvectors[0], torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-7)


def test_a_unit_s_times_as_large_costs_s_squared_and_its_step_is_shorter() -> None:
    case, scale = CASES[2], 2.5
    first, second = (
        decompose(case.network, case.image, coordinates=[Along(images(case.shape), each)]).coordinates for each in (1.0, scale)
    )
    assert first is not None
    assert second is not None
    torch.testing.assert_close(second.fisher, scale**2 * first.fisher)
    torch.testing.assert_close(second.step, first.step / scale)
    torch.testing.assert_close(second.gradient, scale * first.gradient)
    torch.testing.assert_close(first.nats_per_unit * first.step.square(), torch.full_like(first.step, 0.1))


@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
@pytest.mark.parametrize("metric", [None, "noise", "low pass"])
@pytest.mark.parametrize("budget", [None, "64MiB"])
def test_methods_metrics_and_budgets_give_the_same_coordinates_of_the_image_itself(
    method: Any, metric: str | None, budget: str | None
) -> None:
    shape = (2, 7, 5)
    network, x, family = smooth_cnn(shape, 6, seed=3).double(), images(shape, 3, seed=2), Along(images(shape))
    noise = images(shape, 1, seed=8)[0].abs() + 0.1
    chosen = {None: None, "noise": NoiseLevel(noise), "low pass": GaussianLowPass(1.2)}[metric]
    d = decompose(
        network,
        x,
        method=method,
        metric=chosen,
        energy=1.0,
        rank=None,
        memory_budget=budget,
        coordinates=[family],
        tolerance=1e-8,
    )
    found = d.coordinates
    assert found is not None
    assert d.record["coordinates"]["way"] == ("products" if method == "matrix_free" else "columns")
    flat = family.images.flatten(1)
    for b in range(3):
        fisher = dense_fisher(network, x[b : b + 1], "categorical")
        torch.testing.assert_close(found.fisher[b], flat @ fisher @ flat.T, rtol=1e-8, atol=1e-12)
        jacobian = torch.func.jacrev(lambda one: network(one[None])[0].log_softmax(0))(x[b]).flatten(1)
        torch.testing.assert_close(found.gradient[b], jacobian @ flat.T, rtol=1e-8, atol=1e-12)


def many_classes() -> tuple[nn.Module, Tensor, Along]:
    """A network of 40 classes, most of them improbable, with an image and a family."""
    shape = (1, 6, 5)
    network = linear_network(shape, 40, seed=4).double()
    network[1].bias.data = -0.8 * torch.arange(40, dtype=torch.float64)
    return network, images(shape, 1, seed=2), Along(images(shape))


@pytest.mark.parametrize("metric", [None, NoiseLevel(torch.tensor(2.0)), GaussianLowPass(0.7)])
def test_the_adaptive_method_states_by_how_much_left_out_columns_may_matter(metric: Any) -> None:
    network, x, family = many_classes()
    d = decompose(network, x, method="adaptive", tolerance=1e-3, metric=metric, coordinates=[family])
    assert d.record["method"] == "adaptive"
    found = d.coordinates
    assert found is not None
    exact = decompose(network, x, method="exact", coordinates=[family]).coordinates
    assert exact is not None
    lacking = (exact.fisher - found.fisher)[0].diagonal()
    assert bool((lacking >= -1e-12).all())
    assert bool((found.fisher_error > 0).all())
    if metric is None:
        assert bool((lacking <= found.fisher_error[0]).all())
    known = torch.isfinite(found.gradient[0, :, 0])
    assert 2 < int(known.sum()) < 40
    order = d.probabilities[0].argsort(descending=True)
    assert bool(known[order[: int(known.sum())]].all())  # the probable classes
    torch.testing.assert_close(found.gradient[0, known], exact.gradient[0, known], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("metric", [None, GaussianLowPass(0.7)])
def test_columns_that_the_adaptive_method_recovers_from_probes_are_as_good(metric: Any) -> None:
    shape = (1, 6, 5)
    network, x, family = linear_network(shape, 50).double(), images(shape, 1), Along(images(shape))
    network[1].weight.data[49:] *= 1e8
    wanted = torch.cat([torch.zeros(3), -16.0 - 0.1 * torch.arange(47.0)]).double()
    network[1].bias.data += wanted - network(x)[0].detach()
    found, exact = (
        decompose(network, x, method=each, tolerance=1e-2, rank=2, metric=metric, coordinates=[family])
        for each in ("adaptive", "exact")
    )
    assert found.coordinates is not None
    assert exact.coordinates is not None
    assert found.record["method"] == "adaptive"
    torch.testing.assert_close(found.coordinates.fisher, exact.coordinates.fisher, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.coordinates.gradient, exact.coordinates.gradient, rtol=1e-5, atol=1e-7)


def segmenter(classes: int, channels: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = [nn.Conv2d(channels, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, classes, 1)]
    return nn.Sequential(*layers).double().eval()


def through(head: str, z: Tensor) -> Tensor:
    """Probability of each class at every voxel."""
    return z.softmax(1) if head in ("voxelwise", "volumes") else z.sigmoid()


@pytest.mark.parametrize("head", ["voxelwise", "voxelwise_bernoulli"])
@pytest.mark.parametrize("answer", [None, 1])
def test_a_segmentation_takes_a_product_a_coordinate(head: str, answer: int | None) -> None:
    network, x, family = segmenter(3), images((1, 6, 5), 2, seed=2), Along(images((1, 6, 5)))
    d = decompose(network, x, head=head, rank=2, tolerance=0.3, answer=answer, coordinates=[family])
    found = d.coordinates
    assert found is not None
    assert found.gradient_of == "mean probability"
    assert d.record["coordinates"] == {
        "names": ["c0", "c1", "c2", "c3"], "units": ["unit"] * 4, "gradient_of": "mean probability", "way": "products",
        "jacobian_products": 4,
    }  # fmt: skip
    for b in range(2):
        z = network(x[b : b + 1])
        moved = torch.stack([torch.func.jvp(network, (x[b : b + 1],), (t[None],))[1] for t in family.images])
        p = through(head, z)
        if head == "voxelwise":
            inside = torch.ones_like(z[:, :1]) if answer is None else (z.argmax(1, keepdim=True) == answer).double()
            centred = moved - (p * moved).sum(2, keepdim=True)
            slope = p * centred
        else:
            inside = torch.ones_like(z) if answer is None else torch.zeros_like(z)
            if answer is not None:
                inside[:, answer] = (z[:, answer] > 0).double()
            slope = p * (1 - p) * moved
        expected = torch.einsum("i...,j...->ij", slope * inside, moved)
        torch.testing.assert_close(found.fisher[b], expected, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(found.gradient[b], slope[:, 0].mean((2, 3)).T, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("head", ["volumes", "volumes_bernoulli"])
@pytest.mark.parametrize("method", ["exact", "matrix_free"])
@pytest.mark.parametrize("answer", [None, 1])
def test_the_gradient_of_volumes_is_that_of_the_expected_volume(head: str, method: Any, answer: int | None) -> None:
    network, x, family = segmenter(3), images((1, 6, 5), 2, seed=2), Along(images((1, 6, 5)))
    d = decompose(network, x, head=head, method=method, answer=answer, volume_tolerance="2 voxels", coordinates=[family])
    found = d.coordinates
    assert found is not None
    assert found.gradient_of == "volume"
    chosen = slice(None) if answer is None else slice(answer, answer + 1)
    for b in range(2):
        slopes = [
            torch.func.jvp(lambda y: through(head, network(y)).sum((2, 3))[0, chosen], (x[b : b + 1],), (t[None],))[1]
            for t in family.images
        ]
        expected = torch.stack(slopes, dim=1)
        torch.testing.assert_close(found.gradient[b], expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(found.fisher[b], expected.T @ expected / 2.0**2, rtol=1e-8, atol=1e-10)


def test_the_answer_about_one_class_has_the_gradient_of_that_class_alone() -> None:
    case = CASES[0]
    family = Along(images(case.shape))
    found, whole = (decompose(case.network, case.image, answer=answer, coordinates=[family]).coordinates for answer in (2, None))
    assert found is not None
    assert whole is not None
    torch.testing.assert_close(found.gradient, whole.gradient[:, 2:3])
    p = case.logits_network(case.image).softmax(1)[:, 2, None].detach()
    torch.testing.assert_close(found.nats_per_unit, 0.5 * whole.gradient[:, 2].square() * p / (1 - p))


def test_parts_of_a_batch_files_and_moves_keep_the_coordinates(tmp_path: Path) -> None:
    shape = (1, 24, 20)
    network, x, family = smooth_cnn(shape, 4, seed=1), images(shape, 5).float(), Along(images(shape))
    whole = decompose(network, x, coordinates=[family])
    parts = decompose(network, x, coordinates=[family], memory_budget="9MiB")
    assert whole.coordinates is not None
    assert parts.coordinates is not None
    torch.testing.assert_close(parts.coordinates.fisher, whole.coordinates.fisher, rtol=1e-4, atol=1e-7)
    whole.save(tmp_path / "d.safetensors")
    again = Decomposition.load(tmp_path / "d.safetensors").to("cpu").coordinates
    assert again is not None
    assert again.describe() == whole.coordinates.describe()
    for name, values in whole.coordinates.tensors().items():
        assert torch.equal(again.tensors()[name], values)
    decompose(network, x).save(tmp_path / "plain.safetensors")
    assert Decomposition.load(tmp_path / "plain.safetensors").coordinates is None


def test_a_constant_output_is_sensitive_to_nothing() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    network[1].weight.data.zero_()
    found = decompose(network, images((1, 4, 3), 2), coordinates=[Along(images((1, 4, 3)))]).coordinates
    assert found is not None
    assert not bool(found.fisher.any() or found.gradient.any())
    assert bool(found.step.isinf().all())


@pytest.mark.parametrize("case", CASES[::2], ids=lambda case: case.name)
def test_differences_of_the_output_alone_agree_within_their_own_error(case: Case) -> None:
    family = Along(images(case.shape), bend=0.3)
    exact = decompose(case.network, case.image, head=case.likelihood, coordinates=[family]).coordinates
    assert exact is not None
    calls = []

    def predict(x: Tensor) -> Tensor:
        assert not x.requires_grad
        calls.append(len(x))
        return case.network(x).detach()

    found = sensitivity_along(predict, case.image, [family], head=case.likelihood)
    assert calls == [2] * 41
    assert (found.names, found.gradient_of) == (exact.names, exact.gradient_of)
    off, diagonal = (found.fisher - exact.fisher).diagonal(dim1=1, dim2=2).abs(), exact.fisher.diagonal(dim1=1, dim2=2)
    assert bool((off <= found.fisher_error + 1e-9 * diagonal).all())
    relative = 1e-6 if case.dtype == torch.float64 else 2e-2
    torch.testing.assert_close(found.fisher, exact.fisher, rtol=relative, atol=relative * float(diagonal.max()))
    torch.testing.assert_close(found.gradient, exact.gradient, rtol=relative, atol=relative * float(exact.gradient.abs().max()))


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ([Along(images((1, 4, 3))), Along(images((1, 4, 3)))], "several coordinates are called 'c0'.*other names"),
        ([Along(images((1, 4, 4)))], r"shape \(4, 1, 4, 4\), and \(4, 1, 4, 3\)"),
        ([Along(torch.full((2, 1, 4, 3), torch.nan))], "NaN or infinite values: leave the family out"),
        ("placement", "give families of monai_ifim.coordinates"),
        ([{"kind": "along"}], "give families"),
    ],
)
def test_families_that_do_not_fit_are_refused(families: Any, message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        decompose(linear_network((1, 4, 3), 3).double(), images((1, 4, 3), 1), coordinates=families)
    cured = [Along(images((1, 4, 3))), Along(images((1, 4, 3)), name="d")]
    decompose(linear_network((1, 4, 3), 3).double(), images((1, 4, 3), 1), coordinates=cured)


class ByPlace(Along):
    """One coordinate more for CT."""

    def bound(self, image: Tensor, place: Place) -> Family:
        return Along(self.images[: 3 + (place.modality == "CT")])


def test_images_of_one_batch_must_have_the_same_coordinates() -> None:
    x, family = images((1, 4, 3), 2), ByPlace(images((1, 4, 3)))

    def predict(y: Tensor) -> Tensor:
        return y.flatten(1)[:, :3]

    with pytest.raises(IFIMError, match="one at a time"):
        sensitivity_along(predict, x, family, places=[Place(modality="CT"), Place()])
    assert len(sensitivity_along(predict, x[:1], family, places=[Place(modality="CT")]).names) == 4
