"""Volumes of labels as the answer of a segmentation: F against the dense sum over labels, gradients against differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_ifim.core import Decomposition, HeadError, IFIMError, decompose, locality_radius
from monai_ifim.core.decomposition import ANSWERS, joined
from monai_ifim.core.heads.registry import head_from
from monai_ifim.core.heads.volumes import IndependentVolumesHead, VolumesHead, VolumeTolerance
from monai_ifim.core.heads.voxelwise import VoxelwiseHead
from monai_ifim.display.numbers import number
from monai_ifim.display.wording import answer


def _unet(spatial: int, outputs: int, channels: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return UNet(spatial, channels, outputs, (4, 8), (2,), act="TANH").double().eval()


def _image(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _volumes(network: nn.Module, x: Tensor, exclusive: bool, voxel: float) -> Tensor:
    output = network(x)
    shares = output.softmax(1) if exclusive else output.sigmoid()
    return voxel * shares.flatten(2).sum(2)


def _dense(network: nn.Module, x: Tensor, exclusive: bool, voxel: float, sigma: Tensor) -> Tensor:
    """Sum over all labels of grad V grad V^T / sigma^2, [D, D]."""
    rows = torch.autograd.functional.jacobian(lambda z: _volumes(network, z, exclusive, voxel)[0], x)  # type: ignore[no-untyped-call]
    rows = rows.reshape(rows.shape[0], -1) / sigma[:, None]
    return rows.T @ rows


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("tolerance", ["5 %", "0.4ml", "7 voxels"])
@pytest.mark.parametrize(("spatial", "shape"), [(2, (2, 12, 10)), (3, (1, 4, 6, 8))], ids=["2d", "3d"])
def test_f_is_that_of_all_volumes_with_their_tolerances(
    spatial: int, shape: tuple[int, ...], tolerance: str, exclusive: bool
) -> None:
    network, voxel, labels = _unet(spatial, 4, shape[0]), 0.013, 4
    x = _image(1, *shape)
    head = (VolumesHead if exclusive else IndependentVolumesHead)(tolerance, voxel)
    volumes = _volumes(network, x, exclusive, voxel).detach()[0]
    sigma = {"5 %": 0.05 * volumes, "0.4ml": torch.full_like(volumes, 0.4), "7 voxels": torch.full_like(volumes, 7 * voxel)}
    fisher = _dense(network, x, exclusive, voxel, sigma[tolerance].clamp_min(voxel))
    d = decompose(network, x, head=head, energy=1.0, verify="always")
    columns = labels - 1 if exclusive else labels
    assert (d.record["method"], d.record["jacobian_products"]) == ("exact", columns)
    truth = torch.linalg.eigvalsh(fisher).flip(0)[:columns]
    torch.testing.assert_close(d.eigenvalues[0], truth, rtol=1e-8, atol=1e-12 * float(truth[0]))
    found = d.eigenvectors[0].flatten(1)
    torch.testing.assert_close(found.T @ (d.eigenvalues[0][:, None] * found), fisher, rtol=1e-6, atol=1e-9 * float(truth[0]))
    torch.testing.assert_close(d.probabilities[0], volumes)
    assert d.record["verification"]["outcome"] == "agrees"


def test_batches_are_as_single_images_under_any_budget() -> None:
    network, x = _unet(2, 3), _image(3, 1, 12, 10)
    whole = decompose(network, x, head="volumes", rank=2, memory_budget="1GiB")
    for b in range(3):
        alone = decompose(network, x[b : b + 1], head="volumes", rank=2)
        torch.testing.assert_close(whole.eigenvalues[b], alone.eigenvalues[0])
        torch.testing.assert_close(whole.sensitivity[b], alone.sensitivity[0])


@pytest.mark.parametrize("head", ["volumes", "volumes_bernoulli"])
def test_small_steps_cost_half_the_eigenvalue(head: str) -> None:
    network, x, step = _unet(2, 3), _image(2, 1, 12, 10), 1e-4
    d = decompose(network, x, head=head, rank=2)
    moved = network(x + step * d.eigenvectors[:, 0]).detach()
    kind = VolumesHead() if head == "volumes" else IndependentVolumesHead()
    divergence = kind.divergence(network(x).detach(), moved)
    torch.testing.assert_close(divergence, 0.5 * step**2 * d.eigenvalues[:, 0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("gap", [5.0, 40.0, 150.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_saturated_answers_keep_their_digits(gap: float, exclusive: bool) -> None:
    """A linear map of a few voxels whose probabilities round to one; truth by Python's fractions of mpmath."""
    import mpmath

    mpmath.mp.dps = 400
    generator = torch.Generator().manual_seed(2)
    logits = torch.rand(1, 3, 2, 3, generator=generator, dtype=torch.float64)
    logits[:, 0, :, :2] += gap
    logits[:, 1, :, 2] += gap
    head = (VolumesHead if exclusive else IndependentVolumesHead)("2 voxels")
    root = head.square_root(logits)
    columns = (root.scales[0, :, None, None, None] * root.cotangents(0, root.columns)[0]).flatten(1)
    assert torch.allclose(root.cotangents(0, root.columns)[0].flatten(1).norm(dim=1), torch.ones(root.columns).double())
    z = [[mpmath.mpf(float(v)) for v in row] for row in logits[0].flatten(1)]
    voxels, labels = len(z[0]), 3
    gradients = [[mpmath.mpf(0)] * (labels * voxels) for _ in range(labels)]
    for v in range(voxels):
        total = sum(mpmath.exp(z[k][v]) for k in range(labels))
        for c in range(labels):
            p = mpmath.exp(z[c][v]) / total if exclusive else 1 / (1 + mpmath.exp(-z[c][v]))
            for k in range(labels):
                other = mpmath.exp(z[k][v]) / total
                same = p * ((1 if k == c else 0) - other) if exclusive else (p * (1 - p) if k == c else 0)
                gradients[c][k * voxels + v] = same / 2
    truth = [
        [float(sum(gradients[c][i] * gradients[c][j] for c in range(labels))) for j in range(labels * voxels)]
        for i in range(labels * voxels)
    ]
    expected = torch.tensor(truth, dtype=torch.float64)
    torch.testing.assert_close(columns.T @ columns, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))
    assert float(expected.abs().max()) > 0


def test_an_absent_label_has_the_tolerance_of_a_voxel() -> None:
    head = VolumesHead("5 %", 0.01)
    volumes = torch.tensor([[4.0, 1e-30]], dtype=torch.float64)
    torch.testing.assert_close(head.deviations(volumes), torch.tensor([[0.2, 0.01]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("text", "amount", "unit"), [("5 %", 5.0, "%"), ("5%", 5.0, "%"), (" .5ml ", 0.5, "ml"), ("1e2 voxels", 100.0, "voxels")]
)
def test_tolerances_are_read(text: str, amount: float, unit: str) -> None:
    assert VolumeTolerance.parsed(text) == VolumeTolerance(amount, unit)


@pytest.mark.parametrize("text", ["", "5", "0 %", "-1 ml", "5 mm", "nan %", "1e999 ml"])
def test_other_tolerances_are_refused_with_the_cure(text: str) -> None:
    with pytest.raises(HeadError, match=r"such as '5 %'"):
        VolumesHead(text, 1.0)


def test_ml_need_the_volume_of_a_voxel() -> None:
    network, x = _unet(2, 3), _image(1, 1, 8, 8)
    for given in ({"head": VolumesHead("0.5 ml")}, {"head": "volumes", "volume_tolerance": "0.5 ml"}):
        with pytest.raises(HeadError, match="in '%' or 'voxels'. In Python, voxel_volume= states it in ml"):
            decompose(network, x, **given)
        d = decompose(network, x, **given, voxel_volume=0.1)  # the cure
        assert d.record["volumes"] == {"unit": "ml", "tolerance": "0.5 ml", "grid": [8, 8], "voxel_volume": [0.1]}
        assert d.answer_tolerances is not None
        assert d.answer_tolerances.tolist() == [[0.5, 0.5, 0.5]]
    with pytest.raises(HeadError, match="give it in one place"):
        decompose(network, x, head=VolumesHead("0.5 ml"), volume_tolerance="3 %", voxel_volume=0.1)
    for wrong in (0.0, -1.0, [1.0, 2.0, 3.0], "two"):
        with pytest.raises(IFIMError, match="voxel_volume"):
            decompose(network, x, head="volumes", voxel_volume=wrong)  # type: ignore[arg-type]
    assert VolumesHead("0.5 ml", 0.001).unit == "ml"
    with pytest.raises(HeadError, match="more than zero"):
        VolumesHead(voxel_volume=0.0)


def test_description_makes_the_same_head() -> None:
    head = VolumesHead("0.5 ml", 0.001)
    assert head_from(head.describe()).describe() == head.describe() == {  # type: ignore[union-attr]
        "name": "volumes", "tolerance": "0.5 ml", "voxel_volume": 0.001,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("final", "head", "cure"),
    [(nn.Softmax(1), "volumes", "softmax"), (nn.Sigmoid(), "volumes_bernoulli", "sigmoid")],
)
def test_probabilities_are_refused(final: nn.Module, head: str, cure: str) -> None:
    with pytest.raises(HeadError, match=cure):
        decompose(nn.Sequential(_unet(2, 3), final).eval(), _image(1, 1, 8, 8), head=head)
    with pytest.raises(HeadError, match="volumes_bernoulli"):
        decompose(_unet(2, 1), _image(1, 1, 8, 8), head="volumes")


def test_words_give_volumes_and_no_probabilities() -> None:
    d = decompose(_unet(2, 3), _image(1, 1, 12, 10), head="volumes", rank=1)
    assert answer(d, 0) == f"output {', '.join(number(float(v)) for v in d.probabilities[0])}"


def test_a_head_on_maps_has_columns_at_every_voxel_unless_it_says_otherwise() -> None:
    class Other(VoxelwiseHead):
        spatial = True

    assert Other.columns_at_every_voxel
    assert VoxelwiseHead.columns_at_every_voxel
    assert not VolumesHead.columns_at_every_voxel


def test_images_of_different_spacing_have_their_own_volumes_also_in_parts_and_in_files(tmp_path: Path) -> None:
    network, x, voxels = _unet(2, 3), _image(3, 1, 12, 10), [0.01, 0.04, 0.002]
    how: dict[str, Any] = {"head": "volumes", "volume_tolerance": "0.9 ml"}
    d = decompose(network, x, **how, voxel_volume=voxels)
    first = (d.spectrum[:, 0] / d.trace).sort().values
    how |= {"energy": float(first[:2].mean()), "locality": True}  # so that ranks differ
    whole = decompose(network, x, **how, voxel_volume=voxels)
    assert whole.record["volumes"]["voxel_volume"] == voxels
    alone = [decompose(network, x[b : b + 1], **how, voxel_volume=voxels[b]) for b in range(3)]
    assert sorted(int(one.rank) for one in alone) == [1, 1, 2]
    for found in (whole, joined(alone, x)):
        assert found.record["volumes"] == whole.record["volumes"]
        for b, one in enumerate(alone):
            rank = int(one.rank)
            for name in ("probabilities", "answer_tolerances", "answer_slopes"):
                torch.testing.assert_close(getattr(found, name)[b], getattr(one, name)[0])
            assert found.answer_changes is not None
            assert one.answer_changes is not None
            torch.testing.assert_close(found.answer_changes[b, :rank], one.answer_changes[0])
            assert not found.answer_changes[b, rank:].any()
            torch.testing.assert_close(found.locality_radius[b, :rank], one.locality_radius[0, :rank])  # type: ignore[index]
    whole.save(tmp_path / "d.safetensors")
    loaded = Decomposition.load(tmp_path / "d.safetensors").to("cpu")
    for name in ANSWERS:
        kept = getattr(whole, name)
        assert (getattr(loaded, name) is None) if kept is None else torch.equal(getattr(loaded, name), kept)
    torch.testing.assert_close(locality_radius(network, loaded), whole.locality_radius)


def test_the_gradient_of_every_volume_is_a_difference_of_it() -> None:
    network, x, step = _unet(3, 4), _image(1, 1, 4, 6, 8), 1e-5
    d = decompose(network, x, head="volumes", voxel_volume=0.02, energy=1.0)
    assert d.answer_changes is not None
    assert d.answer_slopes is not None
    for i in range(3):
        u = d.eigenvectors[:, i]
        moved = [_volumes(network, x + sign * step * u, True, 0.02).detach()[0] for sign in (1, -1)]
        torch.testing.assert_close(d.answer_changes[0, i], (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(d.answer_slopes, d.answer_changes.norm(dim=1), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        d.answer_changes.sum(2), torch.zeros(1, 3).double(), rtol=0, atol=1e-10
    )  # they add up to the image


def test_methods_that_leave_columns_out_state_no_gradients() -> None:
    d = decompose(_unet(2, 4), _image(1, 1, 12, 10), head="volumes", rank=1, method="matrix_free")
    assert d.answer_slopes is None
    assert d.answer_tolerances is not None


def test_many_labels_are_computed_exactly() -> None:
    d = decompose(_unet(2, 12), _image(1, 1, 12, 10), head="volumes", rank=1)
    assert (d.record["method"], d.record["jacobian_products"]) == ("exact", 11)
    assert "gradient of each volume" in d.record["method_reason"]
    assert d.answer_slopes is not None
    assert d.answer_slopes.shape == (1, 12)


@pytest.mark.parametrize("exclusive", [True, False])
def test_gradients_of_volumes_are_combinations_of_all_eigenvectors(exclusive: bool) -> None:
    network, x = _unet(2, 3), _image(2, 1, 12, 10)
    head = "volumes" if exclusive else "volumes_bernoulli"
    d = decompose(network, x, head=head, voxel_volume=0.02, energy=1.0)
    for b in range(2):
        rows = torch.autograd.functional.jacobian(lambda z: _volumes(network, z, exclusive, 0.02)[0], x[b : b + 1])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(d.answer_gradients()[b], rows[:, 0], rtol=1e-7, atol=1e-10)
    with pytest.raises(IFIMError, match=r"decompose with energy=1\.0"):
        decompose(network, x, head=head, rank=1).answer_gradients()
    with pytest.raises(IFIMError, match="head='volumes'"):
        decompose(network, x, head="voxelwise", rank=1, tolerance=0.5).answer_gradients()
