"""Whatever reader a bundle names, a file that nibabel reads lies where nibabel places it, with nibabel's values."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from monai.transforms import Compose, LoadImage

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.reader import register_dicom_reader
from volume_writers import write_afni, write_analyze

Array = npt.NDArray[Any]
VALUES = np.random.default_rng(4).integers(0, 900, (6, 5, 4)).astype(np.int16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load(path: Path, **named: Any) -> Any:
    pipeline = Compose([LoadImage(image_only=True, **named)])
    register_dicom_reader(pipeline)
    return pipeline(str(path))


def whole(kind: Any) -> Callable[[Path, Array], Path]:
    def write(path: Path, affine: Array) -> Path:
        nib.save(kind(VALUES, affine), path)
        return path

    return write


def packed_without_a_word(path: Path, affine: Array) -> Path:
    path.write_bytes(gzip.compress(nib.Nifti1Image(VALUES, affine).to_bytes()))
    return path


def plain_under_gz(path: Path, affine: Array) -> Path:
    path.write_bytes(nib.Nifti1Image(VALUES, affine).to_bytes())
    return path


def freesurfer(path: Path, affine: Array) -> Path:
    nib.save(nib.MGHImage(VALUES, affine), path.with_name("made.mgh" if path.suffix == ".mgh" else "made.mgz"))
    shutil.move(path.with_name("made.mgh" if path.suffix == ".mgh" else "made.mgz"), path)
    return path


def afni(path: Path, affine: Array) -> Path:
    write_afni(path.parent, VALUES, affine, packed=path.suffix == ".gz")
    return path


def spm(path: Path, affine: Array) -> Path:
    nib.save(nib.Spm99AnalyzeImage(VALUES, affine), path)
    return path


WRITERS: dict[str, Callable[[Path, Array], Path]] = {
    "scan.nii": whole(nib.Nifti1Image),
    "scan.nii.gz": whole(nib.Nifti2Image),
    "packed.nii": packed_without_a_word,
    "plain.nii.gz": plain_under_gz,
    "scan.hdr": whole(nib.Nifti1Pair),
    "scan.img": whole(nib.Nifti2Pair),
    "scan.img.gz": whole(nib.Nifti1Pair),
    "spm.img": spm,
    "scan.mgh": freesurfer,
    "scan.mgz": freesurfer,
    "scan.mgh.gz": freesurfer,
    "scan+orig.HEAD": afni,
    "scan+orig.BRIK": afni,
    "scan+orig.BRIK.gz": afni,
}


@pytest.mark.parametrize("name", WRITERS)
def test_place_and_values_are_those_that_were_written(name: str, oblique: Array, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name, oblique)
    opened = OpenedSource(Source(path))
    opened.check(1)
    assert opened.reading.words() == ()
    for named in ({}, {"reader": "ITKReader"}, {"reader": "NibabelReader"}, {"reader": "PILReader"}):
        image = load(path, **named)
        np.testing.assert_array_equal(image.numpy(), VALUES)
        np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-4)
        assert "descrip" not in image.meta or name.endswith((".nii", ".nii.gz")) or name.startswith("scan.")


@pytest.mark.parametrize("name", ["scan.nii", "scan.mgz", "scan+orig.HEAD"])
def test_options_of_the_named_reader_are_kept(name: str, oblique: Array, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name, oblique)
    image = load(path, reader="ITKReader", affine_lps_to_ras=False, reverse_indexing=True)
    np.testing.assert_array_equal(image.numpy(), VALUES.T)
    np.testing.assert_allclose(image.affine.numpy(), LPS @ oblique, atol=1e-4)
    canonical = load(path, reader="NibabelReader", as_closest_canonical=True)
    np.testing.assert_allclose(
        canonical.affine.numpy(), nib.as_closest_canonical(nib.Nifti1Image(VALUES, oblique)).affine, atol=1e-4
    )


@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (1, 1), (4, 3)])
def test_the_sform_places_where_itk_and_monai_would_take_the_qform(
    codes: tuple[int, int], oblique: Array, tmp_path: Path
) -> None:
    """ITK goes by the codes of the forms, MONAI by the fifth digit of the voxel sizes."""
    qform = oblique.copy()
    qform[:3, 3] += 0.03
    image = nib.Nifti1Image(VALUES, oblique)
    image.set_qform(qform, codes[0])
    image.set_sform(oblique @ np.diag([1.0001, 1.0001, 1.0001, 1]), codes[1])
    nib.save(image, tmp_path / "scan.nii")
    OpenedSource(Source(tmp_path / "scan.nii")).check(1)
    for named in ({}, {"reader": "ITKReader"}, {"reader": "NibabelReader"}):
        np.testing.assert_allclose(load(tmp_path / "scan.nii", **named).affine.numpy(), image.get_sform(), atol=1e-6)
    alone = LPS[:3, :3] @ np.asarray(itk.imread(str(tmp_path / "scan.nii")).GetOrigin())
    at_qform = bool(np.abs(alone - qform[:3, 3]).max() < 1e-4)
    assert at_qform == (codes[1] != 1)  # the case is real


def test_a_label_with_channels_is_read_as_monai_reads_it(oblique: Array, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(6, 5, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, oblique), tmp_path / "scan.nii.gz")
    mine, theirs = load(tmp_path / "scan.nii.gz"), LoadImage(image_only=True)(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert set(mine.meta) == set(theirs.meta)
    np.testing.assert_array_equal(mine.meta["spatial_shape"], theirs.meta["spatial_shape"])
    assert mine.meta["original_channel_dim"] == theirs.meta["original_channel_dim"] == -1


@pytest.mark.parametrize("name", ["scan.nii", "spm.img", "scan.mgz", "scan+orig.HEAD"])
def test_a_chosen_frame_is_a_volume_at_the_same_place(name: str, oblique: Array, tmp_path: Path) -> None:
    series = np.stack([VALUES, VALUES + 7, 2 * VALUES], axis=-1)
    path = tmp_path / name
    if name.endswith("HEAD"):
        write_afni(tmp_path, series, oblique, BRICK_FLOAT_FACS=[0.0, 0.5, 0.0])
    else:
        kind = {"scan.nii": nib.Nifti1Image, "spm.img": nib.Spm99AnalyzeImage, "scan.mgz": nib.MGHImage}[name]
        nib.save(kind(series, oblique), path)
    opened = OpenedSource(Source(path, frame=1))
    opened.check(1)
    assert opened.frames == 3
    (tmp_path / "work").mkdir()
    image = load(opened.readable_path(tmp_path / "work"))
    np.testing.assert_array_equal(image.numpy(), (VALUES + 7) * (0.5 if name.endswith("HEAD") else 1))
    np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-4)
    with pytest.raises(InputError, match="a 4D file of 3 volumes"):
        OpenedSource(Source(path)).check(1)


@pytest.mark.parametrize("named", [{}, {"reader": "ITKReader"}, {"reader": "PILReader"}], ids=str)
def test_what_is_refused_reaches_no_other_reader(named: dict[str, Any], tmp_path: Path) -> None:
    """ITK would place the pair elsewhere."""
    path = write_analyze(tmp_path / "scan", VALUES, orient=b"\x01")
    with pytest.raises(RuntimeError) as error:
        load(path, **named)
    assert isinstance(error.value.__cause__, InputError)
    assert "another orientation" in str(error.value.__cause__)
