"""Random oblique series, as scanners and tools of the field write them: what is accepted lies where its headers say, within the
stated rule, and what is refused breaks that rule.

Slices jitter, drift, tilt or lack one; files are shuffled, and some are there twice; every geometric attribute is rounded.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat
from scipy.spatial.transform import Rotation

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.header import DicomFile
from monai_ifim.io.dicom.identity import identity_of
from monai_ifim.io.dicom.regrid import even_grid
from monai_ifim.io.dicom.regularity import check_placed, check_volume, largest_distance
from monai_ifim.io.dicom.volume import SAME_PLACE
from monai_ifim.io.dicom.volumes import choose_volume, volumes_of
from monai_ifim.io.geometry import LPS_TO_RAS
from tests.synthetic_series import COLUMNS, ROWS, SPACING, Series, write

Array = npt.NDArray[np.float64]
MOST_SLICES, SIZE = 24, (320, 256)  # columns, rows
KINDS = ("even", "jitter", "drift", "two speeds", "shifted", "tilted", "one missing")


@dataclass(frozen=True)
class Stack:
    """A series as it was scanned. axes: directions of columns, rows and slices, one a column; positions: of its slices, along the
    last; noise: rounding of each attribute, relative; files: number of the slice in each file."""

    axes: Array
    positions: Array
    spacing: tuple[float, float]
    noise: float
    files: tuple[int, ...]

    @property
    def gap(self) -> float:
        return float((self.positions[-1] - self.positions[0]) @ self.axes[:, 2]) / (len(self.positions) - 1)

    @property
    def furthest(self) -> float:
        """Largest distance of a slice from the even grid along the normal from the first slice to the height of the last."""
        steps = np.arange(len(self.positions))[:, None] * self.gap
        return float(np.linalg.norm(self.positions - self.positions[0] - steps * self.axes[:, 2], axis=1).max())

    @property
    def uncertain(self) -> float:
        """How far rounded headers may put a slice off, in mm."""
        extent = float(np.abs(self.positions).max()) + float(np.linalg.norm(self.positions[-1] - self.positions[0]))
        return 1e-6 + 10 * self.noise * extent


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """Irregularities of all sizes around those that the rule allows."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    axes = Rotation.random(random_state=np.random.RandomState(draw(st.integers(0, 2**32 - 1)))).as_matrix()
    count, gap = draw(st.integers(3, MOST_SLICES)), draw(st.floats(0.4, 8.0))
    size = min(0.1, 0.1 * gap) * 10 ** draw(st.floats(-1.5, 1.0))
    k = np.arange(count)
    heights, aside = gap * k.astype(np.float64), np.zeros((count, 2))
    kind = draw(st.sampled_from(KINDS))
    if kind == "jitter":
        heights, aside = heights + random.uniform(-size, size, count), random.uniform(-size, size, (count, 2))
    elif kind == "drift":
        heights += 4 * size * (k / (count - 1)) * (k / (count - 1) - 1)
    elif kind == "two speeds":
        heights += size * np.maximum(0, k - count // 2)
    elif kind == "shifted":
        aside[count // 2] = size
    elif kind == "tilted":
        aside = np.outer(k / (count - 1), [size, 0.3 * size])
    elif kind == "one missing":
        heights = np.delete(gap * np.arange(count + 1), draw(st.integers(1, count - 1)))
    origin = random.uniform(-300, 300, 3)
    positions = origin + heights[:, None] * axes[:, 2] + aside @ axes[:, :2].T
    twice = draw(st.sets(st.integers(0, count - 1), max_size=4))
    noise = draw(st.sampled_from([0.0, 1e-9, 1e-7, 1e-6]))
    event(kind)
    return Stack(
        axes, positions, (draw(st.floats(0.3, 2.5)), draw(st.floats(0.3, 2.5))), noise, tuple(random.permutation([*k, *twice]))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose content only says which slice they are of, each twice: headers are given in memory."""
    folder = tmp_path_factory.mktemp("instances")
    for k in range(MOST_SLICES):
        for copy in "ab":
            (folder / f"{k}{copy}").write_text(str(k))
    return folder


def files_of(stack: Stack, folder: Path, seed: int = 1) -> list[DicomFile]:
    random, found, seen = np.random.default_rng(seed), [], set()
    rounded = [_header(stack, k, random) for k in range(len(stack.positions))]
    for k in stack.files:
        path = folder / f"{k}{'b' if k in seen else 'a'}"
        seen.add(k)
        found.append(DicomFile(path, rounded[k], identity=identity_of(rounded[k])))
    return found


def _header(stack: Stack, k: int, random: np.random.Generator) -> Dataset:
    def told(values: Any) -> list[DSfloat]:
        values = np.asarray(values, dtype=np.float64)
        noisy = values + stack.noise * np.maximum(np.abs(values), 1.0) * random.uniform(-1, 1, values.shape)
        return [DSfloat(float(value), auto_format=True) for value in noisy]

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.Modality = CTImageStorage, "CT"
    header.SeriesInstanceUID, header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    header.SOPInstanceUID, header.InstanceNumber = f"1.2.3.{k + 1}", k + 1
    header.Columns, header.Rows = SIZE
    header.PixelSpacing = told([stack.spacing[1], stack.spacing[0]])
    header.ImageOrientationPatient = told([*stack.axes[:, 0], *stack.axes[:, 1]])
    header.ImagePositionPatient = told(stack.positions[k])
    [header.SliceThickness], [header.SpacingBetweenSlices] = told([0.7 * stack.gap]), told([0.0])
    return header


def corners(axes: Array, spacing: tuple[float, float], position: Array) -> Array:
    """Of a slice, LPS mm [4, 3]."""
    ends = np.array([[i, j] for i in (0, SIZE[0] - 1) for j in (0, SIZE[1] - 1)])
    found: Array = position + ends * spacing @ axes[:, :2].T
    return found


@given(stack=stacks())
def test_what_is_accepted_lies_in_its_place_and_what_is_refused_does_not_fit_an_even_grid(stack: Stack, folder: Path) -> None:
    allowed, off = min(0.1, 0.1 * stack.gap), stack.uncertain
    assume(abs(stack.furthest - allowed) > off)  # which side of the limit they are on is theirs to round
    try:
        volume = choose_volume("series", volumes_of(files_of(stack, folder)), None)
        check_volume("series", volume)
    except InputError:
        event("refused")
        assert stack.furthest > allowed
        return
    event("accepted")
    assert stack.furthest < allowed
    assert len(volume.files) == len(stack.positions)
    assert volume.reading.repeated_instances == (len(stack.files) - len(stack.positions) or None)
    assert volume.disagreeing == ()
    assert largest_distance(volume) == pytest.approx(stack.furthest, abs=off)
    grid = slice_grid(volume)
    assert grid is not None
    assert volume.spacing is not None
    np.testing.assert_allclose(grid.directions.T @ grid.directions, np.eye(3), rtol=0, atol=1e-12)
    in_plane = 10 * stack.noise * float(np.max(SIZE)) * 2.5
    for k, position in enumerate(stack.positions):
        place = corners(grid.directions, volume.spacing, grid.origin + k * grid.step * grid.normal)
        truth = corners(stack.axes, stack.spacing, position)
        assert np.linalg.norm(place - truth, axis=1).max() <= allowed + off + in_plane


@given(stack=stacks())
def test_what_is_uneven_is_resampled_at_its_own_places(stack: Stack, folder: Path) -> None:
    """Each slice keeps the place in its header: heights above the new grid's first plane, and shifts within the plane."""
    assume(float(np.diff(np.sort(stack.positions @ stack.axes[:, 2])).min()) > 2 * SAME_PLACE)
    volumes = volumes_of(files_of(stack, folder))
    assume(len(volumes) == 1 and not volumes[0].complaint)  # slices at one place are refused, resampled or not
    volume = volumes[0]
    check_placed("series", volume)
    grid = even_grid("series", volume)
    lps = LPS_TO_RAS @ grid.affine
    first = np.floor(grid.offsets.min(axis=0))
    inverse = np.linalg.inv(lps)
    for k, position in enumerate(stack.positions[np.argsort(stack.positions @ stack.axes[:, 2])]):
        column, row, plane = (inverse @ [*position, 1.0])[:3]
        assert plane * grid.step == pytest.approx(grid.heights[k], abs=stack.uncertain)
        assert (column + first[0], row + first[1]) == pytest.approx(tuple(grid.offsets[k]), abs=stack.uncertain / 0.3)
    assert -2e-6 <= grid.heights[-1] / grid.step - (grid.count - 1) < 1  # no plane beyond the last slice, but for rounding


@pytest.mark.parametrize("seed", range(3))
def test_reader_gives_each_value_at_its_place(seed: int, tmp_path: Path) -> None:
    """Of files whose slices jitter within the rule, in any order and some twice."""
    random = np.random.default_rng(seed)
    axes = Rotation.random(random_state=np.random.RandomState(seed)).as_matrix()
    series = Series(axes, slices=9)
    series.places = series.places + random.uniform(-0.04, 0.04, 9)
    path = write(tmp_path / "series", series.slices())
    for file in list(path.iterdir())[:3]:
        shutil.copy(file, path / f"copy-{file.name}")
    opened = OpenedSource(Source(path))
    opened.check(channels=1)
    assert opened.reading.repeated_instances == 3
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    image: Any = loader(path)
    np.testing.assert_array_equal(np.asarray(image), series.values)
    voxels = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    affine = LPS_TO_RAS @ image.affine.numpy()
    truth = series.origin + (voxels * [*SPACING, 0.0] + np.outer(series.places[voxels[:, 2]], [0, 0, 1])) @ axes.T
    assert np.linalg.norm(voxels @ affine[:3, :3].T + affine[:3, 3] - truth, axis=1).max() <= 0.1
    assert image.shape == (COLUMNS, ROWS, 9)
