"""What a preprocessing is probed for before a scan is decomposed through it, and what is refused, with the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    AdjustContrast,
    Compose,
    ConcatItemsd,
    CopyItemsd,
    EnsureChannelFirstd,
    HistogramNormalize,
    Lambda,
    Lambdad,
    LoadImaged,
    NormalizeIntensity,
    NormalizeIntensityd,
    OneOf,
    Orientationd,
    RandGaussianNoise,
    RandGaussianNoised,
    Resize,
    Resized,
    ScaleIntensityRange,
    Spacing,
    Spacingd,
    SpatialCrop,
    StdShiftIntensity,
    ToTensor,
    Transpose,
)
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor, nn

from monai_ifim import IFIMError, decompose, decompose_scan
from monai_ifim.adapt.scanner import preprocessing as module
from monai_ifim.adapt.scanner import step_checks
from monai_ifim.adapt.scanner.preprocessing import scan_preprocessing
from monai_ifim.adapt.scanner.space import ScannerSpace

Array = npt.NDArray[Any]
SIZE = (6, 5, 7)
CURE = "--space native"


@pytest.fixture
def hounsfield(oblique: Array) -> MetaTensor:
    """A scan [1, 12, 10, 9] of whole numbers on both sides of zero."""
    values = torch.randn(1, 12, 10, 9, generator=torch.Generator().manual_seed(1)) * 300 - 80
    return MetaTensor(values.round(), affine=torch.from_numpy(oblique))


@pytest.fixture
def network() -> nn.Module:
    """For images of any size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.AdaptiveAvgPool3d(3), nn.Flatten(), nn.Linear(27, 3)).eval()


def through_numpy(image: Tensor) -> Tensor:
    return MetaTensor(torch.from_numpy(image.numpy() * 2))


def by_its_mean(image: Tensor) -> Tensor:
    return image / float(image.mean())


REFUSED = {
    "no gradient": (HistogramNormalize(), "HistogramNormalize in the preprocessing has no gradient"),
    "numpy": (Lambda(through_numpy), r"Lambda in the preprocessing fails on an image that requires gradients \(Can't call numpy"),
    "raises": (StdShiftIntensity(1.0, channel_wise=True), "StdShiftIntensity in the preprocessing fails on an image"),
    "no backward pass": (StdShiftIntensity(1.0), "StdShiftIntensity in the preprocessing has no backward pass"),
    "a part is cut": (AdjustContrast(1.7), "AdjustContrast in the preprocessing has an incomplete gradient"),
    "a mean is cut": (Lambda(by_its_mean), "Lambda in the preprocessing has an incomplete gradient"),
}


@pytest.mark.parametrize(("step", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_step_without_a_true_gradient_is_refused_by_name_with_the_cure(
    step: Any, message: str, hounsfield: MetaTensor, network: nn.Module
) -> None:
    steps = Compose([Spacing((2.0, 2.0, 2.0)), step, Resize(SIZE)])
    with pytest.raises(IFIMError, match=message) as refusal:
        decompose_scan(network, steps, hounsfield)
    assert CURE in str(refusal.value)


RANDOM = {
    "random": (RandGaussianNoise(prob=1.0), r"RandGaussianNoise \(prob 1\)"),
    "one of several": (OneOf([NormalizeIntensity(), Resize(SIZE)]), "OneOf"),
    "in a Compose of its own": (Compose([RandGaussianNoise()], map_items=2), r"RandGaussianNoise \(prob 0.1\)"),
    "inside a deterministic step": (Lambda(RandGaussianNoise()), r"RandGaussianNoise \(prob 0.1\)"),
}


@pytest.mark.parametrize(("step", "name"), RANDOM.values(), ids=RANDOM.keys())
def test_a_random_step_is_refused_by_name_with_the_cure(step: Any, name: str, hounsfield: MetaTensor, network: nn.Module) -> None:
    with pytest.raises(IFIMError, match=f"{name} in the preprocessing is random, .*: remove it, or set its prob to 0"):
        decompose_scan(network, Compose([step, Resize(SIZE)]), hounsfield)


def test_a_step_of_a_random_kind_that_draws_nothing_is_as_good_as_none(hounsfield: MetaTensor, network: nn.Module) -> None:
    still = decompose_scan(network, Compose([RandGaussianNoise(prob=0.0), Resize(SIZE)]), hounsfield)
    plain = decompose_scan(network, Compose([Resize(SIZE)]), hounsfield)
    torch.testing.assert_close(still.eigenvalues, plain.eigenvalues)


@pytest.mark.parametrize("step", [AdjustContrast(1.7), Lambda(by_its_mean)], ids=["AdjustContrast", "Lambda"])
def test_statistics_that_a_step_cuts_itself_are_what_freeze_means(step: Any, hounsfield: MetaTensor, network: nn.Module) -> None:
    with pytest.raises(IFIMError, match="statistics='freeze'"):
        decompose_scan(network, step, hounsfield)
    found = decompose_scan(network, step, hounsfield, statistics="freeze", energy=1.0)
    leaf = hounsfield.as_subclass(Tensor).clone().requires_grad_(True)
    logits = network(step(MetaTensor(leaf * 1)).as_subclass(Tensor)[None])[0]
    rows = torch.stack([torch.autograd.grad(logit, leaf, retain_graph=True)[0].flatten() for logit in logits]).double()
    p = logits.detach().double().softmax(0)
    values = torch.linalg.eigvalsh(rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows)
    assert float(found.eigenvalues[0, 0]) == pytest.approx(float(values[-1]), rel=1e-3)


def corner(image: Tensor) -> Tensor:
    return image[:, 60:68] / float(image[:, 60:68].mean())


def test_a_step_that_wants_another_part_than_the_middle_is_probed_with_the_whole_scan(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_checks, "SAMPLE", 30_000)
    scan = MetaTensor(torch.rand(1, 70, 36, 34, generator=torch.Generator().manual_seed(1)) * 100 + 5)
    with pytest.raises(IFIMError, match="Lambda in the preprocessing has an incomplete gradient"):
        decompose_scan(network, Lambda(corner), scan)
    crop = Compose([SpatialCrop(roi_start=(60, 0, 0), roi_end=(68, 9, 30)), NormalizeIntensity(nonzero=True)])
    found = decompose_scan(network, crop, scan, energy=1.0)
    assert found.record["preprocessing"]["zeros_held"]
    assert int(found.rank[0]) == 2
    outside = torch.ones(70, dtype=torch.bool)
    outside[60:68] = False
    assert not found.sensitivity[0, :, outside].any()


def test_what_monai_does_otherwise_above_a_million_voxels_is_seen(hounsfield: MetaTensor) -> None:
    """Percentiles: torch below, with their gradient; numpy above, without."""
    step = scan_preprocessing(Lambda(lambda image: image / percentile(image, 99)))
    step.check(hounsfield)
    large = MetaTensor(torch.rand(1, 110, 203, 61, generator=torch.Generator().manual_seed(1)) * 100 + 5)
    with pytest.raises(IFIMError, match="an incomplete gradient"):
        step.check(large)


GOOD = {
    "clipped at many voxels": ScaleIntensityRange(-100.0, 100.0, 0.0, 1.0, clip=True),
    "steep": Lambda(lambda image: torch.sigmoid(image)),
    "mean and deviation kept": AdjustContrast(1.7, retain_stats=True),
    "a mean that is differentiated": Lambda(lambda image: image - image.mean()),
    "half precision": Lambda(lambda image: image.half().float()),
    "a leap": Lambda(lambda image: torch.where(image > 20, image, 0)),
    "constant at most voxels": Lambda(lambda image: image.clamp(min=500)),
}


@pytest.mark.parametrize("step", GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("offset", [0.0, 1024.0])
def test_a_step_with_kinks_leaps_or_coarse_numbers_is_not_taken_for_one_whose_gradient_is_cut(
    step: Any, offset: float, hounsfield: MetaTensor
) -> None:
    scan_preprocessing(step).check(hounsfield + offset)


def test_an_equivalent_that_is_not_the_installed_monai_s_is_refused(
    hounsfield: MetaTensor, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "equivalent_of", lambda step, statistics: lambda image: image - image.mean())
    with pytest.raises(IFIMError, match="equivalent of NormalizeIntensity differs from this version of MONAI's.*--space native"):
        decompose_scan(network, NormalizeIntensity(), hounsfield)


def test_reading_in_the_middle_is_refused_and_reading_of_a_label_is_not(hounsfield: MetaTensor) -> None:
    steps = [Spacingd("image", (2.0, 2.0, 2.0)), LoadImaged("image")]
    with pytest.raises(IFIMError, match="LoadImaged reads after other steps"):
        scan_preprocessing(Compose(steps))
    label = [steps[0], LoadImaged("label"), RandGaussianNoised("label"), EnsureChannelFirstd("label")]
    scan_preprocessing(Compose(label)).check(hounsfield)


@pytest.mark.parametrize("statistics", ["thaw", None])
def test_unknown_statistics_are_refused(statistics: Any, hounsfield: MetaTensor, network: nn.Module) -> None:
    with pytest.raises(IFIMError, match="unknown statistics .*'differentiate', 'freeze'"):
        decompose_scan(network, Compose([]), hounsfield, statistics=statistics)


@pytest.mark.parametrize("resolution", [-1, "coarse", float("nan"), float("inf"), [1.0, 2.0]])
def test_a_resolution_that_is_none_is_refused(resolution: Any, hounsfield: MetaTensor, network: nn.Module) -> None:
    with pytest.raises(IFIMError, match="give millimetres, from 0 on, or 'network'"):
        decompose_scan(network, Compose([]), hounsfield, resolution=resolution)


def test_a_resolution_beside_noise_is_refused(hounsfield: MetaTensor, network: nn.Module) -> None:
    with pytest.raises(IFIMError, match="two input metrics: give one"):
        decompose_scan(network, Compose([]), hounsfield, resolution=2.0, metric=10.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (Compose([Transpose((0, 2, 1, 3)), Resize(SIZE)]), "Transpose swaps axes but not MONAI's affine"),
        (Compose([Resize(SIZE), ToTensor(track_meta=False)]), "the affine is lost"),
    ],
)
def test_the_network_s_resolution_needs_its_affine(
    steps: Compose, message: str, hounsfield: MetaTensor, network: nn.Module
) -> None:
    with pytest.raises(IFIMError, match=f"{message}: give millimetres"):
        decompose_scan(network, steps, hounsfield, resolution="network")
    assert decompose_scan(network, steps, hounsfield, resolution=3.0).record["preprocessing"]["resolution_mm"] == [3.0] * 3


def test_no_preprocessing_is_refused() -> None:
    with pytest.raises(IFIMError, match="pass preprocessing="):
        ScannerSpace(None)


def test_an_entry_of_another_name_that_the_network_sees_too_is_refused(hounsfield: MetaTensor, network: nn.Module) -> None:
    steps = [CopyItemsd("image", names="copy"), NormalizeIntensityd("copy"), ConcatItemsd(["image", "copy"], "image")]
    with pytest.raises(IFIMError, match="run one by one, give another image than the whole.*--space native"):
        decompose_scan(network, Compose(steps), hounsfield)


def test_a_preprocessing_that_needs_more_than_the_scan_is_refused(hounsfield: MetaTensor) -> None:
    steps = Compose([Resized("image", SIZE), lambda data: {"image": data["image"] + data["label"]}])
    with pytest.raises(IFIMError, match=r"function in the preprocessing fails .*\('label'\)"):
        scan_preprocessing(steps).check(hounsfield)


# What has to work.


def eigenvalues(network: Any, steps: Any, scan: Tensor, **options: Any) -> Tensor:
    return decompose_scan(network, steps, scan, energy=1.0, **options).eigenvalues


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_mode_around_it_changes_nothing(
    guard: Callable[[], Any], hounsfield: MetaTensor, network: nn.Module, tmp_path: Any
) -> None:
    steps = Compose([Spacing((2.0, 2.0, 2.0)), NormalizeIntensity(nonzero=True, channel_wise=True)])
    expected = eigenvalues(network, steps, hounsfield)
    with guard():
        torch.testing.assert_close(eigenvalues(network, steps, hounsfield + 0), expected)


def test_the_scan_and_its_metadata_are_left_as_they_were(hounsfield: MetaTensor, network: nn.Module) -> None:
    """Also by a step that writes into what it is given."""

    def write(image: Tensor) -> Tensor:
        image[:] = image * 3
        return image

    before, affine, meta = hounsfield.as_subclass(Tensor).clone(), hounsfield.affine.clone(), dict(hounsfield.meta)
    steps = Compose([Lambda(write), NormalizeIntensity(channel_wise=True), Spacing((2.0, 2.0, 2.0))])
    decompose_scan(network, steps, hounsfield, resolution="network")
    assert torch.equal(hounsfield.as_subclass(Tensor), before)
    assert torch.equal(hounsfield.affine, affine)
    assert hounsfield.meta.keys() == meta.keys()
    assert not hounsfield.requires_grad
    assert not hounsfield.applied_operations


LAZY = {
    "all": {"lazy": True},
    "each as it says of itself": {"lazy": None},
    "none": {"lazy": False},
}


@pytest.mark.parametrize("settings", LAZY.values(), ids=LAZY.keys())
@pytest.mark.parametrize("between", [[], [NormalizeIntensity()]], ids=["geometry alone", "values in between"])
def test_steps_that_monai_resamples_together_are_resampled_together(
    settings: dict[str, Any], between: list[Any], hounsfield: MetaTensor, network: nn.Module
) -> None:
    """The answer and its change along an eigenvector are those of the untouched Compose."""
    scale = ScaleIntensityRange(-500.0, 500.0, -1.0, 1.0)  # so that a step is small for the softmax
    steps = Compose([scale, Spacing((2.7, 2.1, 3.3), lazy=True), *between, Resize((4, 5, 5), lazy=True)], **settings)
    found = decompose_scan(network, steps, hounsfield, rank=1)
    assert found.record["preprocessing"]["steps"] == [type(step).__name__ for step in steps.transforms]

    def answer(scan: Tensor) -> Tensor:
        with torch.no_grad():
            return network(steps(MetaTensor(scan, affine=hounsfield.affine)).as_subclass(Tensor)[None])

    torch.testing.assert_close(found.logits, answer(hounsfield.as_subclass(Tensor).clone()), rtol=1e-4, atol=1e-3)
    step = 0.05 / float(found.eigenvalues[0, 0]) ** 0.5
    log_p, moved = (answer(hounsfield.as_subclass(Tensor) + e * found.eigenvectors[0, 0]).log_softmax(1) for e in (0.0, step))
    divergence = float((log_p.exp() * (log_p - moved)).sum())
    assert divergence == pytest.approx(0.05**2 / 2, rel=0.05)


def test_lazy_and_eager_resampling_are_not_the_same(hounsfield: MetaTensor, network: nn.Module) -> None:
    steps = [Spacing((2.7, 2.1, 3.3)), Resize((4, 5, 5))]
    eager, lazy = (eigenvalues(network, Compose(steps, lazy=lazy), hounsfield) for lazy in (False, True))
    assert not torch.allclose(eager, lazy, rtol=1e-2, atol=0)


def test_a_label_beside_the_image_is_passed_over(hounsfield: MetaTensor, network: nn.Module) -> None:
    both = ["image", "label"]
    steps = [Orientationd(both, "LPS", labels=None), Spacingd(both, (2.0, 2.0, 2.0)), NormalizeIntensityd("image")]
    label = [Resized("label", SIZE), RandGaussianNoised("label")]
    alone = [Orientationd("image", "LPS", labels=None), Spacingd("image", (2.0, 2.0, 2.0)), NormalizeIntensityd("image")]
    torch.testing.assert_close(
        eigenvalues(network, Compose([*steps, *label]), hounsfield), eigenvalues(network, Compose(alone), hounsfield)
    )


def test_steps_within_steps_and_functions_of_the_whole_dictionary_are_taken(hounsfield: MetaTensor, network: nn.Module) -> None:
    inner = Compose([Spacingd("image", (2.0, 2.0, 2.0)), Compose([NormalizeIntensityd("image")])])
    steps = Compose([inner, lambda data: {**data, "image": data["image"] * 2}, Lambdad("image", lambda image: image / 2)])
    plain = Compose([Spacing((2.0, 2.0, 2.0)), NormalizeIntensity()])
    torch.testing.assert_close(eigenvalues(network, steps, hounsfield), eigenvalues(network, plain, hounsfield))


@pytest.mark.parametrize("kind", ["int16", "float64", "plain"])
def test_a_scan_of_any_type_is_decomposed_in_the_network_s_precision(
    kind: str, hounsfield: MetaTensor, network: nn.Module
) -> None:
    scans = {"int16": hounsfield.to(torch.int16), "float64": hounsfield.double(), "plain": hounsfield.as_subclass(Tensor)}
    found = decompose_scan(network, NormalizeIntensity(), scans[kind])
    assert found.high.dtype == torch.float32
    torch.testing.assert_close(found.high + found.low, hounsfield.as_subclass(Tensor)[None])
    torch.testing.assert_close(found.eigenvalues, decompose_scan(network, NormalizeIntensity(), hounsfield).eigenvalues)


@pytest.mark.parametrize("wrap", [torch.jit.script, lambda network: torch.jit.trace(network, torch.rand(1, 1, 9, 9, 9))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_s_last_operation_is_seen_through_the_preprocessing(
    wrap: Callable[[nn.Module], Any], hounsfield: MetaTensor, network: nn.Module
) -> None:
    plain, scripted = wrap(network), wrap(nn.Sequential(network, nn.Sigmoid()).eval())
    steps = NormalizeIntensity()
    torch.testing.assert_close(eigenvalues(plain, steps, hounsfield), eigenvalues(network, steps, hounsfield), rtol=1e-4, atol=0)
    seen = steps(hounsfield.clone()).as_subclass(Tensor)[None]
    for call in (lambda: decompose(scripted, seen), lambda: eigenvalues(scripted, steps, hounsfield)):
        with pytest.raises(IFIMError, match="last operation is a sigmoid"):
            call()


WRAPPERS = {
    "parallel": nn.DataParallel,
    "its forward": lambda network: network.forward,
    "compiled": lambda network: torch.compile(network, backend="aot_eager"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrapped_networks_are_those_inside(wrap: Callable[[nn.Module], Any], hounsfield: MetaTensor, network: nn.Module) -> None:
    wrapped = wrap(network)
    for _ in range(2):
        torch.testing.assert_close(
            eigenvalues(wrapped, NormalizeIntensity(), hounsfield), eigenvalues(network, NormalizeIntensity(), hounsfield)
        )


def test_a_zero_background_is_left_out_where_the_normalisation_leaves_it_out(hounsfield: MetaTensor, network: nn.Module) -> None:
    """Its voxels stay exactly zero along every eigenvector, so that the file with a step in it is normalised like the file."""
    scan = hounsfield.clone()
    scan[:, :4] = 0
    steps = NormalizeIntensity(nonzero=True, channel_wise=True)
    found = decompose_scan(network, steps, scan, rank=1)
    assert not found.eigenvectors[0, 0, :, :4].any()
    step = 0.05 / float(found.eigenvalues[0, 0]) ** 0.5
    moved = MetaTensor(scan.as_subclass(Tensor) + step * found.eigenvectors[0, 0], affine=scan.affine)
    with torch.no_grad():
        log_p, other = (network(steps(image).as_subclass(Tensor)[None]).log_softmax(1) for image in (scan.clone(), moved))
    assert float((log_p.exp() * (log_p - other)).sum()) == pytest.approx(0.05**2 / 2, rel=0.1)


def test_an_image_of_zeros_has_no_direction_that_changes_the_answer(network: nn.Module) -> None:
    scan = MetaTensor(torch.zeros(1, 9, 8, 7))
    found = decompose_scan(network, NormalizeIntensity(nonzero=True, channel_wise=True), scan)
    assert int(found.rank[0]) == 0
    assert not found.high.any()


def test_the_pipeline_is_probed_with_the_first_scan_alone(
    hounsfield: MetaTensor, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai_ifim.adapt.settings import CaseSettings

    probed: list[int] = []
    check = module.ScanPreprocessing.check
    monkeypatch.setattr(module.ScanPreprocessing, "check", lambda self, scan: (probed.append(1), check(self, scan))[1])
    scanner = ScannerSpace(Compose([NormalizeIntensity()]))
    for shift in range(3):
        scanner.decompose(network, hounsfield + np.float32(shift), CaseSettings())
    assert len(probed) == 1


def test_outputs_differ_by_shape_by_nan_and_by_more_than_rounding() -> None:
    values = torch.randn(2, 30, generator=torch.Generator().manual_seed(4))
    assert not step_checks.differ(values, values * (1 + 1e-6))
    assert not step_checks.differ(torch.empty(0, 3), torch.empty(0, 3))
    assert step_checks.differ(values, values + 1e-2)
    assert step_checks.differ(values, values[:1])
    assert step_checks.differ(values, torch.where(values == values.max(), float("nan"), values))
