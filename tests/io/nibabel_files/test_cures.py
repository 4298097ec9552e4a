"""The cure that a refusal states is run, and what it makes is accepted at the place that it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io import InputError, OpenedSource, Source
from volume_writers import write_afni, write_analyze

Array = npt.NDArray[Any]
VALUES = np.random.default_rng(8).integers(0, 900, (6, 5, 4)).astype(np.int16)
TRUE = np.array([[-1.1, 0.2, 0.0, 31.5], [0.2, 1.1, 0.0, -12.0], [0.0, 0.0, 3.7, 70.25], [0.0, 0.0, 0.0, 1.0]])


def nifti(folder: Path, spoil: Callable[[Any], None], values: Array = VALUES) -> Path:
    image = nib.Nifti1Image(values, TRUE)
    image.set_qform(TRUE, 1)
    image.set_sform(TRUE, 1)
    image.header.set_xyzt_units("mm")
    path = folder / "image.nii"
    nib.save(image, path)
    header = nib.Nifti1Header(path.read_bytes()[:348], check=False)
    spoil(header)
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    return path


def moved(header: Any) -> None:
    header["qoffset_z"] += 20


def another_size(header: Any) -> None:
    header["qform_code"] = 0
    header["pixdim"][3] = 1.5


def no_size(header: Any) -> None:
    header["sform_code"] = 0
    header["pixdim"][1:4] = 0


def no_rotation(header: Any) -> None:
    header["quatern_b"], header["quatern_c"] = 3.0, 2.0


def no_place(header: Any) -> None:
    header["qform_code"] = 0
    header["srow_x"] = 0


def metres(header: Any) -> None:
    header["xyzt_units"] = 1


def loaded(path: Path) -> Any:
    """The image as nibabel gives it, whatever its qform says."""
    return nib.load(path)


def settled(path: Path, target: Path) -> None:
    image = loaded(path)
    image.set_qform(image.get_sform())
    nib.save(image, target)


def settled_the_other_way(path: Path, target: Path) -> None:
    image = loaded(path)
    image.set_sform(image.get_qform())
    nib.save(image, target)


def rewritten(path: Path, target: Path) -> None:
    image = loaded(path)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nib.save(image, target)


def sized(path: Path, target: Path) -> None:
    image = loaded(path)
    image.header.set_zooms((1.2, 1.2, 3.7))
    nib.save(image, target)


def another_qform(path: Path, target: Path) -> None:
    image = loaded(path)
    image.set_qform(image.affine, 1)
    nib.save(image, target)


def placed(path: Path, target: Path) -> None:
    image = loaded(path)
    image.set_sform(TRUE)
    image.set_qform(TRUE)
    nib.save(image, target)


def in_millimetres(path: Path, target: Path) -> None:
    image = loaded(path)
    scale = np.diag([1000.0, 1000.0, 1000.0, 1.0])
    again = nib.Nifti1Image(np.asarray(image.dataobj), scale @ image.affine, image.header)
    again.set_qform(scale @ image.affine)
    again.header.set_xyzt_units("mm")
    nib.save(again, target)


def magnitude(path: Path, target: Path) -> None:
    image = loaded(path)
    nib.save(nib.Nifti1Image(np.abs(np.asarray(image.dataobj)), image.affine), target)


def as_nifti(path: Path, target: Path) -> None:
    nib.save(nib.Nifti1Image(loaded(path).get_fdata(), TRUE), target)


def freesurfer(folder: Path) -> Path:
    path = folder / "image.mgh"
    nib.save(nib.MGHImage(VALUES, TRUE), path)
    content = bytearray(path.read_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    path.write_bytes(content)
    return path


def freesurfer_anew(path: Path, target: Path) -> None:
    nib.save(nib.MGHImage(np.asarray(loaded(path).dataobj), TRUE), target)


def header_of_a_pair(folder: Path) -> Path:
    path = nifti(folder, lambda header: None)
    path.write_bytes(path.read_bytes()[:344] + b"ni1\0" + path.read_bytes()[348:])
    return path


def as_one_file(path: Path, target: Path) -> None:
    target.write_bytes(path.read_bytes()[:344] + b"n+1\0" + path.read_bytes()[348:])


def many_axes(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(np.stack([VALUES, VALUES], axis=-1)[:, :, :, None], TRUE), folder / "image.nii")
    return folder / "image.nii"


def one_volume(path: Path, target: Path) -> None:
    image = loaded(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., 0, 0], image.affine), target)


def coloured(folder: Path) -> Path:
    colours = np.zeros(VALUES.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"], colours["B"] = VALUES % 200, VALUES % 90, VALUES % 7
    nib.save(nib.Nifti1Image(colours, TRUE), folder / "image.nii")
    return folder / "image.nii"


def grey(path: Path, target: Path) -> None:
    image = loaded(path)
    colours = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.mean([colours[name] for name in "RGB"], axis=0), image.affine), target)


def half_named(folder: Path) -> Path:
    return nifti(folder, lambda header: None).rename(folder / "image.hdr")


def renamed(path: Path, target: Path) -> None:
    path.rename(target)


def long_extension(folder: Path) -> Path:
    path = nifti(folder, lambda header: None)
    content = bytearray(path.read_bytes())
    content[348:352] = b"\1\0\0\0"
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header["vox_offset"] = 384
    extension = (4096).to_bytes(4, "little") + bytes(28)
    path.write_bytes(header.binaryblock + bytes(content[348:352]) + extension + bytes(content[352:]))
    return path


def without_extensions(path: Path, target: Path) -> None:
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    header["vox_offset"] = 352
    target.write_bytes(header.binaryblock + bytes(4) + content[384:])


def uncertain_scale(folder: Path) -> Path:
    return write_analyze(folder / "image", VALUES, cal_max=1.0, cal_min=0.0, glmax=900, glmin=0)


def sizes_of_zero(folder: Path) -> Path:
    return write_analyze(folder / "image", VALUES, pixdim=[0, 0, 3, 4, 0, 0, 0, 0])


def long_directions(folder: Path) -> Path:
    path = folder / "image.mgh"
    nib.save(nib.MGHImage(VALUES, TRUE), path)
    content = bytearray(path.read_bytes())
    content[42:46] = b"\x40\x40\0\0"
    path.write_bytes(content)
    return path


def afni(folder: Path) -> Path:
    return write_afni(folder, VALUES, TRUE, DELTA=[1.3, 1.0, 1.0])


Cure = Callable[[Path, Path], None]
LIFTED = TRUE + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 20], [0, 0, 0, 0]])
CURES: dict[str, tuple[Callable[[Path], Path], str, Cure, Array | None]] = {
    "two places, the sform": (lambda folder: nifti(folder, moved), r"image.set_qform\(image.get_sform\(\)\)", settled, TRUE),
    "two places, the qform": (lambda folder: nifti(folder, moved), "or the other way round", settled_the_other_way, LIFTED),
    "other voxel sizes": (lambda folder: nifti(folder, another_size), r"image.set_qform\(image.affine, 1\)", rewritten, TRUE),
    "voxels of no size": (lambda folder: nifti(folder, no_size), "image.header.set_zooms", sized, None),
    "no rotation": (lambda folder: nifti(folder, no_rotation), r"image.set_qform\(image.affine, 1\)", another_qform, TRUE),
    "no place": (lambda folder: nifti(folder, no_place), "image.set_sform, image.set_qform", placed, TRUE),
    "metres": (lambda folder: nifti(folder, metres), r"set_xyzt_units\('mm'\), scaled affine", in_millimetres, None),
    "complex": (lambda folder: nifti(folder, lambda header: None, VALUES.astype(np.complex64)), "numpy.abs", magnitude, TRUE),
    "Analyze, turned": (lambda folder: write_analyze(folder / "image", VALUES, orient=b"\x02"), "Nifti1Image", as_nifti, TRUE),
    "Analyze, in cm": (lambda folder: write_analyze(folder / "image", VALUES, vox_units=b"cm"), "in mm", as_nifti, TRUE),
    "the header of a pair": (header_of_a_pair, "write it again as one .nii", as_one_file, TRUE),
    "half a pair by its name": (half_named, "give it a name that ends in .nii", renamed, TRUE),
    "five axes": (many_axes, "take one volume out of it", one_volume, TRUE),
    "colours": (coloured, "convert the image to grey values", grey, TRUE),
    "a long extension": (long_extension, "export it again without them", without_extensions, TRUE),
    "Analyze, scaled": (uncertain_scale, "Nifti1Image", as_nifti, TRUE),
    "Analyze, no sizes": (sizes_of_zero, "Nifti1Image", as_nifti, TRUE),
    "AFNI, two places": (afni, "write it as NIfTI", as_nifti, TRUE),
    "MGH, long directions": (long_directions, "nibabel.MGHImage", freesurfer_anew, TRUE),
    "MGH without a place": (freesurfer, "nibabel.MGHImage", freesurfer_anew, TRUE),
}  # fmt: skip


@pytest.mark.parametrize("fault", CURES)
def test_what_the_stated_cure_makes_is_accepted(fault: str, tmp_path: Path) -> None:
    make, words, cure, place = CURES[fault]
    path = make(tmp_path)
    with pytest.raises(InputError, match=words):
        OpenedSource(Source(path)).check(1)
    target = tmp_path / f"cured{'.mgh' if path.suffix == '.mgh' else '.nii'}"
    cure(path, target)
    opened = OpenedSource(Source(target))
    opened.check(1)
    assert opened.volume_header is not None
    if place is not None:
        np.testing.assert_allclose(opened.volume_header.affine, place, atol=1e-4)
