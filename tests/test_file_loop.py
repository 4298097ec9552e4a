"""Scanner space from file to file: a scan changed along u_1, written and read by the bundle, changes the answer as predicted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_ifim import Decomposition, decompose_scan
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.evaluation.demonstration import demo_slice, demo_volume
from monai_ifim.io.installation import resolve_bundle

Array = npt.NDArray[Any]
ZOO = Path(__file__).resolve().parent / "zoo_bundles"
BUNDLES = ["lumpy_lesion_detection_3d", "mednist_classification", "classification_template", "endoscopic_inbody_classification"]
EACH_BUNDLE = pytest.mark.parametrize("name", [*BUNDLES[:3], pytest.param(BUNDLES[3], marks=pytest.mark.slow)])
DEVIATION = 0.10  # that defines the locality radius
RESOLVED = 0.005  # share of a divergence that float32 passes lose at these steps: a few thousandths at most
DIGITS = 160


class Case(NamedTuple):
    """A bundle, a file for it, the scan [channel, *spatial] in the file, and the affine it is written with."""

    bundle: Bundle
    file: Path
    scan: Any
    affine: Array


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a bundle, made once: the demonstrations' own scans, and for bundles in the shape of the zoo's made ones."""
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            root = _zoo_bundle(name, folder) if (ZOO / name).is_dir() else resolve_bundle(name)
            bundle, file = load_bundle(root), FILES[name](folder)
            scan = bundle.read(file)[bundle.image_key]
            affine = nib.load(file).affine if file.name.endswith(".nii.gz") else np.eye(4)
            made[name] = Case(bundle, file, scan, affine)
        return made[name]

    return case


def _zoo_bundle(name: str, folder: Path) -> Path:
    """The bundle's configs, and seeded weights for them."""
    root = folder / name
    shutil.copytree(ZOO / name, root)
    (root / "models").mkdir()
    parser = ConfigParser()
    parser.read_config(next((root / "configs").glob("inference.*")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def _walk(folder: Path) -> Path:
    """A random walk of an odd size with distinct values."""
    values = np.random.default_rng(5).normal(size=(67, 45)).cumsum(0).cumsum(1).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([1.5, 0.8, 1.0, 1.0])), folder / "walk.nii.gz")
    return folder / "walk.nii.gz"


def _photograph(folder: Path) -> Path:
    """A colour photograph without black, which the bundle would leave out of its statistics."""
    coarse = np.random.default_rng(6).integers(60, 200, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((75, 91), Image.Resampling.BICUBIC).save(folder / "photograph.jpg")
    return folder / "photograph.jpg"


FILES: dict[str, Callable[[Path], Path]] = dict(
    zip(BUNDLES, (demo_volume, lambda _: demo_slice(), _walk, _photograph), strict=True)
)


def _decomposed(case: Case, **options: Any) -> Decomposition:
    asked: dict[str, Any] = {"head": "categorical", "rank": 1, "locality": True} | options
    return decompose_scan(case.bundle.network, case.bundle.preprocessing, case.scan, **asked)


def _written(case: Case, values: torch.Tensor, folder: Path) -> Path:
    """Values [channel, *spatial] as float32 NIfTI; a photograph's colours go last, where its bundle looks for them."""
    array = values.numpy().astype(np.float32)
    array = np.moveaxis(array, 0, -1) if len(array) > 1 else array[0]
    nib.save(nib.Nifti1Image(array, case.affine), folder / "moved.nii.gz")
    return folder / "moved.nii.gz"


def _answer(case: Case, file: Path) -> list[float]:
    """Logits of a file, by the bundle's own preprocessing and network."""
    with torch.no_grad():
        return [float(z) for z in case.bundle.network(case.bundle.preprocess(file).as_tensor()[None])[0]]


def _divergence(logits: list[float], moved: list[float]) -> float:
    """KL(softmax(logits) || softmax(moved)) by its definition, with enough digits for any certainty."""

    def log_softmax(values: list[float]) -> list[Decimal]:
        exact = [Decimal(z) for z in values]
        total = sum((z.exp() for z in exact), Decimal(0)).ln()
        return [z - total for z in exact]

    with localcontext(prec=DIGITS):
        before, after = log_softmax(logits), log_softmax(moved)
        return float(sum((p.exp() * (p - q) for p, q in zip(before, after, strict=True)), Decimal(0)))


def _check_loop(case: Case, d: Decomposition, folder: Path) -> None:
    before = _answer(case, case.file)
    radius, eigenvalue = float(d.locality_radius[0, 0]), float(d.eigenvalues[0, 0])
    assert 0 < radius < float("inf")
    for fraction in (0.1, 0.5, 1.0):
        step = fraction * radius
        moved = d.image[0].double() + step * d.eigenimages[0, 0].double()
        measured = _divergence(before, _answer(case, _written(case, moved, folder)))
        assert measured == pytest.approx(0.5 * step**2 * eigenvalue, rel=DEVIATION + RESOLVED)


@EACH_BUNDLE
def test_a_file_changed_along_u_1_changes_the_answer_as_predicted(
    cases: Callable[[str], Case], name: str, tmp_path: Path
) -> None:
    case = cases(name)
    _check_loop(case, _decomposed(case), tmp_path)


@pytest.mark.slow
@EACH_BUNDLE
def test_so_does_one_changed_at_a_resolution_in_mm(cases: Callable[[str], Case], name: str, tmp_path: Path) -> None:
    case = cases(name)
    d = _decomposed(case, resolution=3.0)
    assert d.record["preprocessing"]["resolution"] == 3.0
    _check_loop(case, d, tmp_path)


@EACH_BUNDLE
def test_a_random_change_of_the_same_length_does_far_less(cases: Callable[[str], Case], name: str, tmp_path: Path) -> None:
    case = cases(name)
    d = _decomposed(case)
    step, before = float(d.locality_radius[0, 0]), _answer(case, case.file)
    noise = torch.randn(d.image[0].shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    along, elsewhere = d.eigenvectors[0, 0].double(), noise / noise.norm()
    costs = [
        _divergence(before, _answer(case, _written(case, d.image[0].double() + step * direction, tmp_path)))
        for direction in (along, elsewhere)
    ]
    assert costs[1] < 0.1 * costs[0]


@EACH_BUNDLE
def test_a_copy_in_which_nothing_is_changed_gets_the_same_answer(cases: Callable[[str], Case], name: str, tmp_path: Path) -> None:
    case = cases(name)
    d = _decomposed(case)
    torch.testing.assert_close(d.high + d.low, d.image, rtol=1e-6, atol=0)
    torch.testing.assert_close(d.image[0], case.scan.as_tensor().float(), rtol=0, atol=0)
    assert _answer(case, _written(case, d.image[0], tmp_path)) == pytest.approx(_answer(case, case.file), abs=1e-5)
