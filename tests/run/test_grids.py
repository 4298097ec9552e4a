"""Numbers of one grid: those of the sidecar and the tables, made again from the files by nibabel and numpy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import read_sidecar
from monai_ifim.io.older_sidecars import up_to_date
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import row_from_sidecar

Array = npt.NDArray[Any]
MAPS = ("input", "high", "low", "sensitivity")
READ = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
SEEN = (7, 5, 6)  # voxels of the middle of the scan that the network sees, where it sees no more
CUT = [*READ, {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": list(SEEN)},
       {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [9, 8, 7]}]  # fmt: skip


class Runs:
    """Runs of one scan through one bundle, each made once. cut: the network sees the middle of the scan, padded."""

    def __init__(self, root: Path, scan: Path, output: Path, cut: bool) -> None:
        self.bundle, self.scan, self.output, self.cut = load_bundle(root), scan, output, cut

    def __call__(self, space: str, **settings: Any) -> tuple[dict[str, Any], dict[str, Array]]:
        """The sidecar, and the true values [channel, *spatial] of each map, eigenvectors by "eigenvector 1"."""
        output = self.output / "-".join(map(str, (space, *settings.items())))
        case = CaseSettings(**{"head": "categorical", "locality": True, "space": space, "rank": 2, **settings})  # type: ignore[arg-type]
        (row,) = run_cases(self.bundle, find_cases([self.scan]), RunSettings(output, case), lambda row: None)
        assert row.status in ("done", "kept"), row.reason
        sidecar = read_sidecar(output / "scan" / "scan_ifim.json")
        found: dict[str, list[Array]] = {}
        for file in sidecar["files"]:
            name = file["kind"] if file["component"] is None else f"{file['kind']} {file['component']}"
            values = nib.load(output / "scan" / file["file"]).get_fdata() * file["scale"]
            assert file["norm"] == pytest.approx(np.linalg.norm(values), rel=1e-6)
            found.setdefault(name, []).append(values)
        return sidecar, {name: np.stack(values) for name, values in found.items()}


@pytest.fixture(scope="module", params=["resampled", "cut and padded"])
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_bundle: Any, write_scan: Any, oblique: Array
) -> Runs:
    folder = tmp_path_factory.mktemp("grids")
    cut = request.param == "cut and padded"
    root = make_bundle(folder / "bundle", steps=CUT if cut else None)
    return Runs(root, write_scan(folder / "scan.nii.gz", (11, 8, 13), oblique), folder, cut)


def expected(sidecar: dict[str, Any], maps: dict[str, Array], per_unit: float = 1.0) -> dict[str, Any]:
    """What the sidecar must say, from files on the grid of the decomposition. per_unit: length of an eigenimage."""
    norms = {name: float(np.linalg.norm(maps[name])) for name in MAPS}
    steps = np.array(sidecar["locality_radius"]) * per_unit
    return {
        "norms": norms,
        "high_share": norms["high"] / norms["input"],
        "locality_share": steps / norms["input"],
        "locality_rms": steps / np.sqrt(maps["input"].size),
    }


def check(sidecar: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted["norms"].items():
        assert sidecar["norms"][name] == pytest.approx(value, rel=1e-5)
    for name in ("high_share", "locality_share", "locality_rms"):
        np.testing.assert_allclose(sidecar[name], wanted[name], rtol=1e-5)


@pytest.mark.parametrize("space", ["network", "scanner"])
def test_where_files_lie_on_the_grid_of_the_decomposition_all_numbers_follow_from_them(runs: Runs, space: str) -> None:
    sidecar, maps = runs(space)
    grid = {"network": "network", "scanner": "input"}[space]
    assert (sidecar["grids"]["decomposition"], sidecar["grids"]["files"], sidecar["norms"]["grid"]) == (grid,) * 3
    assert {file["grid"] for file in sidecar["files"]} == {grid}
    check(sidecar, expected(sidecar, maps))
    norms = sidecar["norms"]
    assert norms["values"] == maps["input"].size
    assert np.hypot(norms["high"], norms["low"]) == pytest.approx(norms["input"], rel=1e-5)
    for component in (1, 2):
        assert np.linalg.norm(maps[f"eigenvector {component}"]) == pytest.approx(1, rel=1e-5)
    assert sidecar["trace"] == pytest.approx(maps["sensitivity"].sum(), rel=1e-4)


def test_carried_to_the_input_s_grid_numbers_stay_those_of_the_network_s_and_norms_of_files_say_theirs(runs: Runs) -> None:
    on_network, network_maps = runs("network")
    native, maps = runs("native")
    assert (native["grids"]["decomposition"], native["grids"]["files"], native["norms"]["grid"]) == (
        "network",
        "input",
        "network",
    )
    assert {file["grid"] for file in native["files"]} == {"input"}
    check(native, expected(on_network, network_maps))
    for name in ("norms", "high_share", "locality_radius", "locality_share", "locality_rms", "eigenvalues", "trace"):
        assert native[name] == on_network[name]
    carried = float(np.linalg.norm(maps["input"]))
    if not runs.cut:
        assert native["norms"]["input"] != pytest.approx(carried, rel=0.05)
        return
    scan = nib.load(runs.scan).get_fdata()  # norms of its files are of what the network saw of it
    starts = [size // 2 - seen // 2 for size, seen in zip(scan.shape, SEEN, strict=True)]
    seen = tuple(slice(start, start + size) for start, size in zip(starts, SEEN, strict=True))
    inside = np.zeros_like(scan)
    inside[seen] = scan[seen]
    np.testing.assert_allclose(maps["input"][0], inside, rtol=0, atol=1e-4 * np.abs(scan).max())
    assert carried == pytest.approx(np.linalg.norm(scan[seen]), rel=1e-5)


def test_units_name_the_grid(runs: Runs) -> None:
    for space, unit, grid in (("native", "network input intensity", "network"), ("scanner", "scanner units", "input")):
        units = runs(space)[0]["units"]
        assert units["eigenvalues"] == units["sensitivity"] == f"nats per ({unit} on the {grid}'s grid)^2"
        assert units["locality_radius"] == f"{unit}, L2 norm on the {grid}'s grid"
        assert units["locality_share"] == f"1, share of the L2 norm of the image on the {grid}'s grid"
        assert units["locality_rms"] == f"{unit}, root mean square on the {grid}'s grid"
        assert units["eigenvectors"] == f"unit norm on the {grid}'s grid"


def test_a_radius_in_units_of_noise_is_a_share_and_a_change_of_the_image(runs: Runs) -> None:
    sidecar, maps = runs("network", metric=0.25)
    assert sidecar["units"]["locality_radius"] == "standard deviation of the noise, L2 norm on the network's grid"
    check(sidecar, expected(sidecar, maps, per_unit=0.25))
    plain = runs("network")[0]
    np.testing.assert_allclose(sidecar["locality_share"], plain["locality_share"], rtol=0.05)


def test_a_low_pass_changes_the_image_by_less_than_the_step(runs: Runs) -> None:
    sidecar, maps = runs("scanner", resolution=6.0)
    shares = np.array(sidecar["locality_share"]) * np.linalg.norm(maps["input"]) / np.array(sidecar["locality_radius"])
    assert (shares > 0).all()
    assert (shares < 0.9).all()


def test_the_step_is_that_of_the_network_s_own_divergence(runs: Runs) -> None:
    """Moved by the rms change that the sidecar states, the untouched network's answer is off the parabola by 10 % at most."""
    sidecar, maps = runs("network")
    image = torch.from_numpy(maps["input"])[None].float()
    direction = torch.from_numpy(maps["eigenvector 1"])[None].float()
    step = sidecar["locality_rms"][0] * np.sqrt(maps["input"].size)
    assert step == pytest.approx(sidecar["locality_share"][0] * np.linalg.norm(maps["input"]), rel=1e-6)
    divergences = []
    for size in (0.9 * step, 1.5 * step):
        with torch.no_grad():
            before, after = (runs.bundle.network(each).double().log_softmax(1) for each in (image, image + size * direction))
        measured = float((before.exp() * (before - after)).sum())
        divergences.append(abs(measured / (size**2 * sidecar["eigenvalues"][0] / 2) - 1))
    assert divergences[0] <= 0.1 < divergences[1]


def test_tables_and_page_show_the_grid_of_the_decomposition(runs: Runs) -> None:
    sidecar, _ = runs("native")
    row = row_from_sidecar("scan", "done", sidecar)
    norms = sidecar["norms"]
    assert (row.norm_input, row.norm_high, row.norm_low, row.norm_sensitivity) == tuple(norms[name] for name in MAPS)
    assert (row.norms_grid, row.locality_share, row.locality_rms) == (
        "network", tuple(sidecar["locality_share"]), tuple(sidecar["locality_rms"]),
    )  # fmt: skip
    (output,) = (path for path in runs.output.iterdir() if path.name == "native")
    page = write_cohort(output).read_text(encoding="utf-8")
    assert "% of |x|" in page
    assert "on the network&#39;s grid" in page
    glossary_and_tooltips = re.compile(r'<dl.*?</dl>|title="[^"]*"', flags=re.DOTALL)
    assert "locality radius" not in glossary_and_tooltips.sub("", page)


def test_norms_of_an_earlier_sidecar_are_said_to_be_those_of_its_files(runs: Runs) -> None:
    sidecar, maps = runs("native")
    old = {name: value for name, value in sidecar.items() if name not in ("norms", "locality_share", "locality_rms", "grids")}
    old = old | {"schema_version": "2.3", "input": {k: v for k, v in sidecar["input"].items() if k != "tied_channels"}}
    row = row_from_sidecar("scan", "done", up_to_date(old))
    assert (row.norms_grid, row.locality_share, row.channels) == ("", None, "")
    assert row.norm_high == pytest.approx(np.linalg.norm(maps["high"]), rel=1e-6)


@pytest.mark.parametrize(("space", "channels", "setting"), [("native", 1, "tied"), ("native", 2, "each"), ("scanner", 2, "tied")])
def test_an_earlier_sidecar_says_what_it_did_with_channels(space: str, channels: int, setting: str) -> None:
    files = [{"channel": channel} for channel in range(1, channels + 1)]
    old = {"schema_version": "2.3", "settings": {"space": space}, "files": files}
    assert up_to_date(old)["settings"] == {"space": space, "channels": setting}
