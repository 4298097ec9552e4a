"""`NibabelFileReader`: NIfTI, Analyze, MGH and AFNI for MONAI's LoadImage, where nibabel places them.

MONAI's NibabelReader moves a NIfTI file to its qform where voxel sizes and sform differ in the fifth digit; ITK takes sform or
qform by a rule of its own and places Analyze elsewhere. Here the place is nibabel's: the sform, else the qform.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import NibabelReader
from monai.data.utils import orientation_ras_lps
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.image_files.guard import Refusal
from monai_ifim.io.nibabel_files.opening import is_nibabel_file, open_volume


class NibabelFileReader(NibabelReader):
    """Reads what nibabel reads, by content where names mislead (gzip); all else is left to MONAI's other readers.

    Arguments as MONAI's NibabelReader; reverse_indexing and affine_lps_to_ras as its ITKReader, in whose place this one reads.
    LoadImage raises InputError, with the cure, for a file that is broken or, but for NIfTI, has no certain place.
    """

    def __init__(self, reverse_indexing: bool = False, affine_lps_to_ras: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reverse_indexing, self.affine_lps_to_ras = reverse_indexing, affine_lps_to_ras

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str] | str) -> bool:
        """True if nibabel reads all the files."""
        return all(is_nibabel_file(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike[str]] | PathLike[str] | str, **kwargs: Any) -> Any:
        """nibabel's images, or a `Refusal`; raises OSError for other files, so that LoadImage tries its next reader."""
        if not self.verify_suffix(data):
            raise OSError("not a file that nibabel reads.")
        self.filenames = ensure_tuple(data)
        try:
            images = [_opened(Path(name)) for name in self.filenames]
        except InputError as error:
            return Refusal(error)
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """As NibabelReader; raises the InputError of a refusal."""
        if isinstance(img, Refusal):
            raise img.error
        values, meta = super().get_data(img)
        if not self.affine_lps_to_ras:
            meta[MetaKeys.SPACE] = SpaceKeys.LPS
            for key in (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE):
                meta[key] = orientation_ras_lps(meta[key])
        return values, meta

    def _get_meta_dict(self, img: Any) -> dict[str, Any]:
        """The fields of a NIfTI header, as MONAI gives them; none of other formats."""
        return super()._get_meta_dict(img) if "dim" in _fields(img) else {}

    def _get_spatial_shape(self, img: Any) -> Any:
        return super()._get_spatial_shape(img) if "dim" in _fields(img) else np.asarray(img.shape[:3])

    def _get_array_data(self, img: Any, filename: Any) -> npt.NDArray[Any]:
        values = super()._get_array_data(img, filename)
        file = img.file_map["image"].fileobj
        if file is not None:
            file.close()  # voxels of a plain file stay mapped
        if "dim" not in _fields(img) and values.shape[3:] == (1,):  # AFNI states one sub-brick as an axis
            values = values[..., 0]
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return values.T if self.reverse_indexing else values


def _fields(img: Any) -> Any:
    """Names of the fields of a header, as NIfTI and Analyze have them."""
    return img.header.keys() if hasattr(img.header, "keys") else ()


def _opened(path: Path) -> Any:
    try:
        return open_volume(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        said = f"{path.name}: cannot be read ({unquoted(error)}): copy it again, or convert it to NIfTI."
        raise InputError(said) from redacted(error)
