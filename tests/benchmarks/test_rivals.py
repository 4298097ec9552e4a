"""Directions of other methods are judged by a truth that agrees with the dense matrix, and the power iterations find theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import compare
from benchmarks.memory import Measurement
from benchmarks.networks import Subject, small_densenet
from benchmarks.power_iteration import PowerIteration, by_differences, by_double_backward
from benchmarks.rivals import BUILDS, Truth, _peak_row, methods
from monai_ifim.core.dense import dense_fisher

CPU = torch.device("cpu")
SLOWEST = ("plenoptic, randomized SVD", "KL gradients, 100 steps", "IntegratedGradients")


def _subject(classes: int = 4) -> Subject:
    torch.manual_seed(7)
    layers = (nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 5 * 3, classes))
    network = nn.Sequential(*layers).double().requires_grad_(False).eval()
    return Subject("tiny", network, torch.rand(1, 1, 7, 5, generator=torch.Generator().manual_seed(8)).double(), classes)


def _spectrum(one: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Dense F, its eigenvalues and its eigenvectors as columns, largest first."""
    fisher = dense_fisher(one.network, one.image)
    values, vectors = torch.linalg.eigh(fisher)
    return fisher, values.flip(0), vectors.flip(1)


def test_the_share_is_that_of_the_dense_matrix() -> None:
    one = _subject()
    fisher, values, vectors = _spectrum(one)
    truth = Truth(one)
    assert truth.share(3 * vectors[:, 0]) == pytest.approx(1.0, abs=1e-9)
    assert truth.share(-vectors[:, 1]) == pytest.approx(float(values[1] / values[0]), rel=1e-8)
    d = torch.randn(35, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = float((d @ fisher @ d) / (d @ d) / values[0])
    assert truth.share(d.reshape(1, 1, 7, 5)) == pytest.approx(expected)
    assert truth.share(torch.zeros(35)) == 0.0


def test_one_step_is_the_product_with_the_dense_matrix_and_many_find_its_eigenvector() -> None:
    one = _subject()
    fisher, _, vectors = _spectrum(one)
    start = torch.randn(one.image.shape, generator=torch.Generator().manual_seed(4)).double().flatten()
    expected = fisher @ start / (fisher @ start).norm()
    for found in (by_differences(one.network, one.image, 1e-5), by_double_backward(one.network, one.image, 1)):
        assert found.products == 1
        torch.testing.assert_close(found.direction.flatten(), expected, rtol=0, atol=1e-4)
    for found in (by_differences(one.network, one.image, 1e-4, 200), by_double_backward(one.network, one.image, 200)):
        assert 1 < found.products < 200
        assert abs(float(found.direction.flatten() @ vectors[:, 0])) > 0.9999


def test_the_iteration_ends_where_nothing_changes_the_answer() -> None:
    flat = Subject("flat", nn.Sequential(nn.Flatten(), nn.Linear(35, 3)).double().eval(), _subject().image, 3)
    nn.init.zeros_(flat.network[1].weight)  # type: ignore[index]
    found = by_double_backward(flat.network, flat.image, 9)
    assert isinstance(found, PowerIteration)
    assert found.products == 1
    assert float(found.direction.norm()) == pytest.approx(1.0)


@pytest.mark.slow
def test_every_method_gives_a_direction_and_those_that_must_find_the_leading_one_do() -> None:
    one = small_densenet(6, 64, CPU)
    truth = Truth(one)
    calls = methods(one)
    for slow in SLOWEST:
        del calls[slow]
    shares = {name: truth.share(call()) for name, call in calls.items()}
    assert all(0 <= share <= 1 + 1e-6 for share in shares.values())
    for name in ("exact", "torch.func.jacrev", "KL gradients, double backward"):
        assert shares[name] > 0.999, name
    assert shares["Saliency"] < shares["gradient of log p"]
    assert set(shares) | set(SLOWEST) == set(BUILDS)


def test_peaks_are_multiples_of_exact_or_say_why_not() -> None:
    peaks = {"exact": Measurement(2**22, 1.0), "Saliency": Measurement(2**23, 1.0), "Occlusion": "exit status 137"}
    found = _peak_row("Saliency", "case", peaks)
    assert (found.value, found.details) == (2.0, "8 MiB")
    assert _peak_row("Occlusion", "case", peaks).details == "exit status 137"
    assert _peak_row("GradCAM", "case", peaks).details == "not measured"
    assert _peak_row("Saliency", "case", {**peaks, "exact": "no memory"}).value is None


def test_cpu_seconds_of_a_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["compare", "--cpu-seconds", "--device", "cuda", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit):
        compare.main()
    assert "--cpu-seconds does not count what a GPU does: leave it out." in capsys.readouterr().err
