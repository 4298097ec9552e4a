"""The matrix-free method against ARPACK and the exact method, on spectra that are flat, repeated or short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from monai_ifim.core import ConvergenceWarning, Decomposition, NetworkError, decompose
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.dense import dense_fisher, top_eigenpairs
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.convergence import wanted_pairs
from monai_ifim.core.solvers.watch import IterationState, Watch

Networks = Callable[..., nn.Sequential]


def _projector_distance(first: Tensor, second: Tensor) -> float:
    a, b = first.flatten(1).double(), second.flatten(1).double()
    return float(torch.linalg.matrix_norm(a.T @ a - b.T @ b, 2))


@pytest.fixture(scope="module")
def flat_network(cnn: Networks) -> nn.Sequential:
    """A smooth network with 400 nearly equally probable classes for [2, 13, 11] images."""
    return cnn((2, 13, 11), 400, seed=3, gain=1.0)


def _image(batch: int = 1) -> Tensor:
    return torch.randn(batch, 2, 13, 11, generator=torch.Generator().manual_seed(17))


def test_leading_pairs_are_arpack_s(flat_network: nn.Sequential) -> None:
    x = _image()
    d = decompose(flat_network, x, method="matrix_free", rank=5, tolerance=1e-4)
    fisher = dense_fisher(flat_network, x).numpy()
    operator = LinearOperator(fisher.shape, matvec=lambda v: fisher @ v, dtype=np.float64)
    values, vectors = eigsh(operator, k=5, which="LA", tol=1e-10)
    torch.testing.assert_close(d.eigenvalues[0], torch.from_numpy(values[::-1].copy()), rtol=1e-5, atol=0)
    assert _projector_distance(d.eigenvectors[0], torch.from_numpy(vectors.T.copy())) < 1e-3


def test_it_takes_fewer_products_than_columns_and_agrees_with_exact(flat_network: nn.Sequential) -> None:
    x = _image(2)
    d = decompose(flat_network, x, method="matrix_free", rank=5, tolerance=1e-3)
    truth = decompose(flat_network, x, method="exact", rank=5)
    assert float(d.probabilities.max()) < 0.05
    assert d.record["jacobian_products"] < 0.25 * truth.record["jacobian_products"]
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-3, atol=0)
    for found, expected in zip(d.eigenvectors, truth.eigenvectors, strict=True):
        assert _projector_distance(found, expected) < 1e-2
    torch.testing.assert_close(d.eigenvectors[:, 0], truth.eigenvectors[:, 0], rtol=0, atol=1e-2)  # signs too
    torch.testing.assert_close(d.trace, truth.trace, rtol=0.25, atol=0)  # an estimate
    assert bool((d.trace * (1 + d.error_bound) >= d.spectrum.sum(1)).all())


def test_share_of_the_trace_decides_how_many_pairs(linear: Networks) -> None:
    network, x = linear((1, 9, 8), 80, gain=2.0).double(), torch.randn(1, 1, 9, 8, dtype=torch.float64)
    network[-1].weight.data *= 0.8 ** torch.arange(72.0)  # a spectrum that decays
    truth = decompose(network, x, method="exact", energy=0.9)
    d = decompose(network, x, method="matrix_free", energy=0.9, tolerance=1e-4)
    assert abs(int(d.rank) - int(truth.rank)) <= 1
    kept = min(int(d.rank), int(truth.rank))
    torch.testing.assert_close(d.eigenvalues[0, :kept], truth.eigenvalues[0, :kept], rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_repeated_leading_eigenvalues_are_all_found(seed: int) -> None:
    """Three equal eigenvalues above a flat rest: one start vector sees one of them."""
    size = 60
    basis = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    values = torch.cat([torch.full((3,), 25.0), torch.linspace(2.0, 0.5, size - 3)]).double()
    network = nn.Sequential(nn.Flatten(), nn.Linear(size, size, bias=False)).double().eval()
    network[1].weight.data = values.sqrt()[:, None] * basis.T
    x = torch.randn(1, 1, 10, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    d = decompose(network, x, head="gaussian", method="matrix_free", rank=3, tolerance=1e-6, seed=seed)
    torch.testing.assert_close(d.eigenvalues[0], values[:3], rtol=1e-6, atol=0)
    assert _projector_distance(d.eigenvectors[0], basis[:, :3].T) < 1e-4


def test_fewer_nonzero_eigenvalues_than_asked_for(linear: Networks) -> None:
    network, x = linear((1, 7, 5), 90).double(), torch.randn(1, 1, 7, 5, dtype=torch.float64)
    network[-1].weight.data[:, 4:] = 0  # F has rank 4
    d = decompose(network, x, method="matrix_free", rank=9)
    truth = decompose(network, x, method="exact", rank=9)
    assert d.rank.tolist() == truth.rank.tolist() == [4]
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-8, atol=0)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an iteration for k pairs: k + 6 steps."""
    monkeypatch.setattr("monai_ifim.core.solvers.lanczos.STEPS_A_PAIR", 1)
    monkeypatch.setattr("monai_ifim.core.solvers.lanczos.FURTHER_STEPS", 6)


@pytest.fixture(scope="module")
def slow_network() -> nn.Sequential:
    """A linear regression of 300 outputs from [1, 21, 19]: two large eigenvalues, and a flat spectrum below them."""
    generator = torch.Generator().manual_seed(11)
    network = nn.Sequential(nn.Flatten(), nn.Linear(399, 300, bias=False)).double().eval()
    network[1].weight.data = torch.randn(300, 399, generator=generator, dtype=torch.float64)
    network[1].weight.data[:2] *= torch.tensor([[9.0], [6.0]])
    return network


def _volume() -> Tensor:
    return torch.randn(1, 1, 21, 19, generator=torch.Generator().manual_seed(12), dtype=torch.float64)


def _true_residuals(network: nn.Sequential, d: Decomposition) -> Tensor:
    """|F u - l u| of the first image, F = W^T W."""
    weight: Tensor = network[1].weight.detach()  # type: ignore[assignment]
    vectors, values = d.eigenvectors[0].flatten(1), d.eigenvalues[0]
    return (vectors @ weight.T @ weight - values[:, None] * vectors).norm(dim=1)


def _image_of(d: Decomposition, b: int) -> Decomposition:
    return replace(d, eigenvalues=d.eigenvalues[b : b + 1], eigenvectors=d.eigenvectors[b : b + 1])


@pytest.mark.usefixtures("few_steps")
def test_unfinished_iteration_gives_its_best_pairs_with_their_residuals_and_says_so(slow_network: nn.Sequential) -> None:
    x = _volume()
    with pytest.warns(ConvergenceWarning, match="not converged .its steps are used up after 18 steps.: rank=12") as caught:
        d = decompose(slow_network, x, head="gaussian", method="matrix_free", rank=12, tolerance=1e-5)
    assert caught[0].filename == __file__
    assert (d.rank.tolist(), d.converged.tolist(), d.status) == ([12], [False], ("not converged",))
    assert (d.record["status"], d.record["stopped"]) == ("not converged", "steps")
    true = _true_residuals(slow_network, d)
    assert bool((true <= d.residuals[0] * (1 + 1e-6) + 1e-9 * d.eigenvalues[0, 0]).all())
    torch.testing.assert_close(d.residuals[0], true, rtol=0.01, atol=1e-6 * float(d.eigenvalues[0, 0]))  # measured, not bounded
    assert float((true / d.eigenvalues[0]).max()) > 0.05
    truth = decompose(slow_network, x, head="gaussian", method="exact", rank=1)
    torch.testing.assert_close(d.eigenvalues[0, :1], truth.eigenvalues[0], rtol=1e-4, atol=0)


CURES: list[tuple[int, float, Any]] = [(2, 1e-5, "matrix_free"), (6, 0.9, "matrix_free"), (6, 1e-5, "exact")]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("rank", "tolerance", "method"), CURES)
def test_cures_of_an_unfinished_iteration_work(
    rank: int, tolerance: float, method: Any, slow_network: nn.Sequential, recwarn: pytest.WarningsRecorder
) -> None:
    x = _volume()
    with pytest.warns(ConvergenceWarning, match="Give a smaller rank=, or a larger tolerance=, or method='exact'"):
        decompose(slow_network, x, head="gaussian", method="matrix_free", rank=6, tolerance=1e-5)
    recwarn.clear()
    d = decompose(slow_network, x, head="gaussian", method=method, rank=rank, tolerance=tolerance)
    assert d.status == ("converged",)
    assert not [each for each in recwarn if issubclass(each.category, ConvergenceWarning)]


def test_share_of_a_flat_spectrum_gives_what_tells_something_and_never_nothing(slow_network: nn.Sequential) -> None:
    x = _volume()
    with pytest.warns(ConvergenceWarning, match="energy=0.999 and .* Give rank=, a number of components, instead of a share"):
        d = decompose(slow_network, x, head="gaussian", method="matrix_free", energy=0.999, tolerance=1e-12)
    assert d.status == ("not converged",)
    assert 1 <= int(d.rank) < 96
    assert bool((d.residuals[0] <= 0.5 * d.eigenvalues[0]).all())
    assert bool((_true_residuals(slow_network, d) <= 1.001 * d.residuals[0] + 1e-9).all())


def test_a_batch_says_of_each_image_whether_it_is_converged(slow_network: nn.Sequential) -> None:
    x = torch.cat([_volume(), -_volume()])
    asked: list[int] = []

    def stop(following: int) -> bool:
        asked.append(following)
        return len(asked) == 7

    settings = Settings("gaussian", method="matrix_free", rank=4, tolerance=1e-9)
    with pytest.warns(ConvergenceWarning, match="asked to stop after 7 steps, image.s. .* of the batch.*more time"):
        d = decompose_with(settings, slow_network, x, watch=Watch(stop=stop))
    assert d.record["stopped"] == "request"
    assert d.rank.tolist() == [4, 4]
    assert not bool(d.converged.any())
    for b in range(2):
        true = _true_residuals(slow_network, _image_of(d, b))
        assert bool((true <= d.residuals[b] * (1 + 1e-6) + 1e-9 * d.eigenvalues[b, 0]).all())


def test_stop_is_told_the_products_that_follow_and_they_are_no_more(slow_network: nn.Sequential) -> None:
    x = _volume()
    told: list[tuple[int, int]] = []
    made = [0]

    def stop(following: int) -> bool:
        told.append((made[0], following))
        return len(told) == 5

    settings = Settings("gaussian", method="matrix_free", rank=4, tolerance=1e-9, probes=3)
    with pytest.warns(ConvergenceWarning):
        d = decompose_with(settings, slow_network, x, progress=lambda done, _: made.__setitem__(0, done), watch=Watch(stop=stop))
    before, following = told[-1]
    assert before == 10
    assert before < made[0] <= before + following
    assert d.record["jacobian_products"] <= made[0]


def test_the_state_of_the_iteration_is_told_as_it_goes(slow_network: nn.Sequential) -> None:
    x = _volume()
    states: list[IterationState] = []
    settings = Settings("gaussian", method="matrix_free", rank=2, tolerance=1e-6)
    d = decompose_with(settings, slow_network, x, watch=Watch(report=states.append))
    assert [state.wanted for state in states] == [2] * len(states)
    assert states[0].residual > states[-1].tolerance == 1e-6
    assert states[-1].good == 2
    assert all(state.products + (state.left or 0) <= state.most for state in states)
    assert d.record["jacobian_products"] <= states[-1].most
    foretold = [state.products + state.left for state in states[len(states) // 2 :] if state.left is not None]
    assert foretold
    assert all(abs(total - d.record["jacobian_products"]) <= 0.5 * d.record["jacobian_products"] for total in foretold)


class _NoDoubleBackward(torch.autograd.Function):
    """tanh whose backward pass cannot be differentiated, but which has a forward derivative."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * (1 - y * y)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return tangent * (1 - y * y)


class _NeitherWay(torch.autograd.Function):
    """tanh with a backward pass and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * (1 - y * y)


class _With(nn.Module):
    def __init__(self, network: nn.Sequential, activation: Any) -> None:
        super().__init__()
        self.network, self.activation = network, activation
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.activation.apply(x))
        return logits


def test_dual_numbers_step_in_where_the_backward_pass_has_no_derivative(linear: Networks) -> None:
    network, x = linear((1, 7, 5), 30).double(), torch.randn(1, 1, 7, 5, dtype=torch.float64)
    truth = decompose(nn.Sequential(nn.Tanh(), *network).eval(), x, rank=3)
    d = decompose(_With(network, _NoDoubleBackward), x, rank=3, method="matrix_free", tolerance=1e-6)
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-6, atol=0)


def test_network_with_neither_is_refused_and_the_exact_method_named(linear: Networks) -> None:
    network, x = linear((1, 7, 5), 30).double(), torch.randn(1, 1, 7, 5, dtype=torch.float64)
    with pytest.raises(NetworkError, match="[Uu]se method='exact' or 'adaptive'"):
        decompose(_With(network, _NeitherWay), x, rank=3, method="matrix_free")
    decompose(_With(network, _NeitherWay), x, rank=3, method="exact")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_network(flat_network: nn.Sequential) -> None:
    x = _image()
    truth = decompose(flat_network, x, method="exact", rank=3)
    d = decompose(torch.jit.script(flat_network), x, method="matrix_free", rank=3)
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-4, atol=0)


def test_saturated_prediction_does_not_underflow(linear: Networks) -> None:
    network, x = linear((1, 7, 5), 40), torch.randn(1, 1, 7, 5)
    network[-1].bias.data -= network(x)[0].detach()
    network[-1].bias.data[4] += 160.0
    d = decompose(network, x, method="matrix_free", rank=2, tolerance=1e-4)
    truth = decompose(network, x, method="exact", rank=2)
    assert 0.0 < float(d.eigenvalues[0, 0]) < 1e-60
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-3, atol=0)


class Attention(nn.Module):
    """One head of attention by PyTorch's fused kernel, which has one derivative alone and no forward mode."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.answer = nn.Linear(3, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.token(x.flatten(2).transpose(1, 2)).unsqueeze(1).chunk(3, dim=-1)
        answer: Tensor = self.answer(nn.functional.scaled_dot_product_attention(q, k, v).mean(2)[:, 0])
        return answer


@pytest.mark.parametrize("budget", [None, "40MiB"])
def test_fused_attention_is_taken_in_steps(budget: str | None) -> None:
    torch.manual_seed(3)
    network, image = Attention().eval(), torch.randn(1, 3, 5, 7)
    values, vectors = top_eigenpairs(dense_fisher(network, image), 2)
    found = decompose(network, image, method="matrix_free", rank=2, tolerance=1e-5, memory_budget=budget)
    torch.testing.assert_close(found.eigenvalues[0], values, rtol=1e-4, atol=0)
    overlap = found.eigenvectors[0].flatten(1).double() @ vectors.T
    torch.testing.assert_close(overlap.abs(), torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("energy", "rank", "outside", "columns", "wanted"),
    [
        (0.39, None, 0.0, 9, 1),  # the first of 4, 3, 2, 1 holds 0.4
        (0.41, None, 0.0, 9, 2),
        (0.41, None, 8.0, 9, 3),  # of 18, with what is outside
        (0.99, None, 8.0, 9, 5),  # not held by the four: one more than there are
        (0.99, None, 8.0, 4, 4),  # there are no more
        (0.99, 2, 8.0, 9, 2),
        (0.99, 7, 0.0, 9, 7),
        (0.99, 7, 0.0, 4, 4),
    ],
)
def test_pairs_wanted_are_those_that_hold_the_share(
    energy: float, rank: int | None, outside: float, columns: int, wanted: int
) -> None:
    theta = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    assert wanted_pairs(theta, outside, energy, rank, columns) == wanted
