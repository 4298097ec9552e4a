"""Speed and accuracy of the methods with fewer products (adaptive, matrix-free) compared with exact."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from benchmarks.accuracy import largest_relative_error, projector_distance
from benchmarks.baselines import ENERGY
from benchmarks.networks import SEED, Subject, densenet121, unet
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting, count
from monai_ifim import Decomposition, decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.io.installation import resolve_bundle

DATA_VARIABLE = "IFIM_TEST_DATA"
EVERY = 6  # test images taken
MEDNIST_TOLERANCE = 1e-2
PEAKED_TOLERANCE = 1e-3
FREE_TOLERANCE = 1e-3
FREE_RANK = 5
MOST: dict[str, Any] = {"head": "categorical", "energy": ENERGY}  # most of the trace
LEADING: dict[str, Any] = {"head": "categorical", "rank": FREE_RANK}
LIKELY = 1e-4  # probability above which a class counts
PEAKS, SPREAD, FLOOR = 10, 5.0, -20.0  # likely classes, nats between them, logit of all others


class SectionSkipped(Exception):  # noqa: N818
    """A section cannot be run here, and why."""


class Kept:
    """`decompose` of one image with fixed settings; keeps what it returned last."""

    def __init__(self, network: nn.Module, image: Tensor, **settings: Any) -> None:
        self.network, self.image, self.settings = network, image, settings
        self.result: Decomposition | None = None

    def __call__(self) -> None:
        """Decompose, and keep the result."""
        self.result = decompose(self.network, self.image, **self.settings)

    @property
    def found(self) -> Decomposition:
        """The last result; there has to be one."""
        if self.result is None:
            raise RuntimeError("nothing has been decomposed yet")
        return self.result

    @property
    def eigenvalues(self) -> Tensor:
        """Kept eigenvalues of the only image."""
        return self.found.eigenvalues[0, : int(self.found.rank[0])]

    @property
    def products(self) -> int:
        """Jacobian products of the last result."""
        return int(self.found.record["jacobian_products"])

    @property
    def account(self) -> str:
        """Products and the method that was used in the end."""
        return f"{count(self.products, 'product')} by {self.found.record['method']}"


def adaptive_mednist(setting: Setting) -> list[Row]:
    """Exact over adaptive for a trained network on real images: the median over images of each image's own ratio."""
    network, images = mednist(setting)
    setting.note(f"MedNIST, {len(images)} images")
    ratios, products, errors, ranks, other_ranks, fell_back = [], [], [], [], 0, 0
    seconds: dict[str, list[float]] = {"exact": [], "adaptive": []}
    for i, image in enumerate(images):
        exact = Kept(network, image, **MOST, method="exact")
        adaptive = Kept(network, image, **MOST, method="adaptive", tolerance=MEDNIST_TOLERANCE)
        timings = setting.measure({"exact": exact, "adaptive": adaptive}, warm_up=i == 0)
        ratios.append(timings.ratio("exact", "adaptive"))
        products.append(adaptive.products)
        errors.append(largest_relative_error(adaptive.eigenvalues, exact.eigenvalues))
        ranks.append(exact.eigenvalues.numel())
        other_ranks += adaptive.eigenvalues.numel() != ranks[-1]
        fell_back += adaptive.found.record["method"] == "exact"
        for name in seconds:
            seconds[name].append(timings.median(name))
    case = f"MedNIST bundle, {len(images)} test images, C = 6, tolerance {MEDNIST_TOLERANCE:g}"
    medians = ", ".join(f"{name} {statistics.median(values):.3g} s" for name, values in seconds.items())
    details = f"{medians}; {count(setting.rounds, 'round')} an image; ratio's quartiles {_quartiles(ratios)}"
    used = f"smallest, quartiles, largest: {min(products)}, {_quartiles(products)}, {max(products)} (exact: {exact.products})"
    used += f"; {count(fell_back, 'image')} by exact in the end; exact keeps {_quartiles(ranks)} components (quartiles)"
    share = f"median {statistics.median(errors):.1e}; {count(other_ranks, 'image')} with another number of components"
    return [
        Row("exact / adaptive", case, statistics.median(ratios), Bar(1.3, True), "", details, seconds),
        Row("products of adaptive", case, statistics.median(products), None, "", used),
        Row("largest relative error of kept eigenvalues", case, max(errors), None, "", share),
    ]


def adaptive_peaked(setting: Setting) -> list[Row]:
    """Exact over adaptive where a thousand classes are possible and ten are likely."""
    subject = _peaked(densenet121(setting.size(1000, 40), setting.size(224, 64), setting.device))
    setting.note(subject.title)
    with torch.no_grad():
        likely = int((subject.network(subject.image).softmax(1) > LIKELY).sum())
    exact = Kept(subject.network, subject.image, **MOST, method="exact")
    adaptive = Kept(subject.network, subject.image, **MOST, method="adaptive", tolerance=PEAKED_TOLERANCE)
    timings = setting.measure({"adaptive": adaptive, "exact": exact}, limits={"exact": 1})
    error = largest_relative_error(adaptive.eigenvalues, exact.eigenvalues)
    case = f"{subject.title}, {likely} classes with p > {LIKELY:g}, tolerance {PEAKED_TOLERANCE:g}"
    details = f"{timings.describe()}; {adaptive.account} (exact: {exact.products})"
    kept = f"components kept: {adaptive.eigenvalues.numel()} (exact: {exact.eigenvalues.numel()})"
    return [
        Row("exact / adaptive", case, timings.ratio("exact", "adaptive"), Bar(30.0, True), "", details, timings.seconds),
        Row("largest relative error of kept eigenvalues", case, error, Bar(1e-3, False), "", kept),
    ]


def matrix_free(setting: Setting) -> list[Row]:
    """Exact over matrix-free for the leading components of a nearly uniform softmax of a thousand classes."""
    subject = densenet121(setting.size(1000, 40), setting.size(224, 64), setting.device)
    setting.note(subject.title)
    with torch.no_grad():
        largest = float(subject.network(subject.image).softmax(1).max())
    exact = Kept(subject.network, subject.image, **LEADING, method="exact")
    free = Kept(subject.network, subject.image, **LEADING, method="matrix_free", tolerance=FREE_TOLERANCE)
    timings = setting.measure({"matrix_free": free, "exact": exact}, limits={"exact": 1})
    case = f"{subject.title}, largest p {largest:.2g}, rank {FREE_RANK}, tolerance {FREE_TOLERANCE:g}"
    details = f"{timings.describe()}; {free.account} (exact: {exact.products})"
    spans = [kept.found.eigenvectors[0, : kept.eigenvalues.numel()] for kept in (free, exact)]
    error = largest_relative_error(free.eigenvalues, exact.eigenvalues)
    distance = projector_distance(spans[0], spans[1])
    gap = exact.found.spectrum[0, FREE_RANK - 1 : FREE_RANK + 1].tolist()
    arpack = arpack_products(subject.network, subject.image, FREE_RANK, FREE_TOLERANCE)
    return [
        Row("exact / matrix_free", case, timings.ratio("exact", "matrix_free"), Bar(10.0, True), "", details, timings.seconds),
        Row("largest relative error of kept eigenvalues", case, error),
        Row("distance of projectors", case, distance, details=f"eigenvalues before and after the cut {_pair(gap)}"),
        Row(
            "products of ARPACK / of matrix_free",
            case,
            arpack / free.products,
            details=f"{arpack} by scipy's eigsh on the same F v",
        ),
    ]


def arpack_products(network: nn.Module, image: Tensor, rank: int, tolerance: float) -> int:
    """Jacobian products that scipy's eigsh asks for, to the same residual, of the operator that matrix_free iterates with."""
    with evaluation_mode(network):
        jacobian = Jacobian(lambda x: network(x), image)
        factor = Factor(jacobian, CategoricalHead().square_root(jacobian.output))

        def matvec(v: Any) -> Any:
            row, scale = factor.multiply(torch.from_numpy(v.reshape(1, -1).copy()))
            return (factor.adjoint(row) * scale[:, None]).numpy()[0]

        operator = LinearOperator((factor.columns, factor.columns), matvec=matvec, dtype="float64")
        eigsh(operator, k=rank, which="LA", tol=tolerance, v0=torch.ones(factor.columns, dtype=torch.float64).numpy())
    return jacobian.products


def voxelwise(setting: Setting) -> list[Row]:
    """Time of a segmentation network by matrix-free over that of one forward pass without gradients."""
    subject = unet(3, setting.size(128, 32), setting.device)
    setting.note(subject.title)
    free = Kept(subject.network, subject.image, head="voxelwise", rank=FREE_RANK, method="matrix_free", tolerance=FREE_TOLERANCE)

    def forward() -> None:
        with torch.no_grad():
            subject.network(subject.image)

    timings = setting.measure({"matrix_free": free, "forward": forward})
    case = f"{subject.title} of each pixel, rank {FREE_RANK}, tolerance {FREE_TOLERANCE:g}"
    details = f"{timings.describe()}; {free.account}"
    ratio = timings.ratio("matrix_free", "forward")
    return [
        Row("matrix_free / one forward pass", case, ratio, None, "", details, timings.seconds),
        Row("matrix_free", case, timings.median("matrix_free"), None, "s"),
        Row("products of matrix_free", case, free.products),
    ]


def mednist(setting: Setting) -> tuple[nn.Module, list[Tensor]]:
    """The trained network and test images [1, 1, 64, 64] as its bundle prepares them."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise SectionSkipped(f"set {DATA_VARIABLE} to the folder that holds mednist/datalist.json")
    entries = json.loads((Path(folder) / "mednist" / "datalist.json").read_text(encoding="utf-8"))["testing"]
    bundle = load_bundle(resolve_bundle("mednist_classification"), setting.device)
    chosen = entries[:: setting.size(EVERY, EVERY * 20)]
    images = [bundle.preprocess(Path(folder) / entry["image"]).as_tensor() for entry in chosen]
    return bundle.network, [image[None].to(setting.device) for image in images]


def _peaked(subject: Subject) -> Subject:
    """The last layer's bias set so that PEAKS random classes lie within SPREAD nats and the logit of all others near FLOOR."""
    generator = torch.Generator().manual_seed(SEED + 3)
    wanted = FLOOR + torch.randn(subject.classes, generator=generator)
    chosen = torch.randperm(subject.classes, generator=generator)[:PEAKS]
    wanted[chosen] = SPREAD * torch.rand(PEAKS, generator=generator)
    layers = [module for module in subject.network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        logits = subject.network(subject.image)[0]
        layers[-1].bias.add_(wanted.to(logits) - logits)
    return subject


def _quartiles(values: list[float] | list[int]) -> str:
    if len(values) < 2:
        return str(values[0])
    return ", ".join(f"{value:.3g}" for value in statistics.quantiles(values, n=4))


def _pair(values: list[float]) -> str:
    return " and ".join(f"{value:.3g}" for value in values)
