"""`FormatGuard`: refuses, before any reader of MONAI's opens it, an image that would read other files than its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import ImageReader
from monai.utils import ensure_tuple

from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.compression import is_gzip
from monai_ifim.io.image_files.formats import is_known_format
from monai_ifim.io.image_files.parts import files_of


@dataclass(frozen=True)
class Refusal:
    """Returned by `read` instead of an image that is refused: LoadImage would hide an error raised there."""

    error: InputError


class FormatGuard(ImageReader):
    """A reader that reads nothing: it takes the files that are to be refused, and leaves all others to the next reader.

    known_formats: refuse also what none of MONAI's own readers decodes by itself (`io.image_files.formats`); False where a
    reader of somebody else's is there for it.
    """

    def __init__(self, known_formats: bool = True) -> None:
        super().__init__()
        self.known_formats = known_formats

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str] | str) -> bool:
        """True if one of the files is refused."""
        return self._refusal(filename) is not None

    def read(self, data: Sequence[PathLike[str]] | PathLike[str] | str, **kwargs: Any) -> Refusal:
        """The refusal; raises OSError for files that are not refused, so that LoadImage tries its next reader."""
        refusal = self._refusal(data)
        if refusal is None:
            raise OSError("the file is not refused.")
        return Refusal(refusal)

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """Raises the InputError of the refusal."""
        raise img.error

    def _refusal(self, names: Sequence[PathLike[str]] | PathLike[str] | str) -> InputError | None:
        for path in map(Path, ensure_tuple(names)):
            try:
                files_of(path)
                known = not self.known_formats or not path.is_file() or is_known_format(path)
            except InputError as error:
                return error
            except OSError:
                continue  # the next reader says why it cannot be opened
            if not known and is_gzip(path):
                return InputError(f"{path.name}: cannot be read, because it is compressed (gzip): unpack it (gunzip).")
            if not known:
                return InputError(
                    f"{path.name}: cannot be read (no format that is known): copy it again, or convert it to NIfTI."
                )
        return None
