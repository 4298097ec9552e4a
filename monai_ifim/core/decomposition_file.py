"""Files of decompositions: tensors in the safetensors format, the record as JSON in its metadata. Reading executes nothing."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_ifim.core.errors import IFIMError

KIND = "monai_ifim decomposition"
SCHEMA = "2"  # 2 adds converged, trace_error, sensitivity_error


def write_decomposition(file: str | PathLike[str], tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write the tensors and the record, under a temporary name that takes the place of `file` once it is whole.

    Raises IFIMError where the record is not plain data, and where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(file)
    try:
        metadata = {"kind": KIND, "schema": SCHEMA, "record": json.dumps(record)}
    except TypeError as error:
        raise IFIMError(f"the record holds more than plain data ({error}): let Metric.describe() return plain data.") from error
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask has it; safetensors lets only the owner read
        save_file(_separate(tensors), temporary, metadata)
        temporary.chmod(mode)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise IFIMError(f"{path} cannot be written ({error}): name a file in a folder that exists and has room.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_decomposition(
    file: str | PathLike[str], required: Sequence[str], optional: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, record) of a file of `write_decomposition`.

    required, optional: names of tensors that the file must and may hold. Raises IFIMError, with the cure, for a file that is
    missing, damaged, of other content or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(file)
    if not path.is_file():
        raise IFIMError(f"{path} is not a file: give the path of a file that Decomposition.save wrote.")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            record = _record(path, opened.metadata() or {})
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise IFIMError(
            f"{path} is not a complete safetensors file ({error}): save the decomposition again, or copy the file again."
        ) from error
    _check_tensors(path, tensors, required, optional)
    return tensors, record


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, contiguous; those that share memory with one before as copies, which the format demands."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, values in tensors.items():
        storage = values.untyped_storage().data_ptr()
        separate[name] = values.clone().contiguous() if storage in seen else values.contiguous()
        seen.add(storage)
    return separate


def _record(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The record in a file's metadata; raises IFIMError if the file is of another kind or schema."""
    if metadata.get("kind") != KIND:
        raise IFIMError(f"{path} is a safetensors file of other content: give a file that Decomposition.save wrote.")
    if metadata.get("schema") != SCHEMA:
        raise IFIMError(
            f"{path} has schema {metadata.get('schema')!r} and this version of monai_ifim reads {SCHEMA!r}: read it with the "
            "version that wrote it, or decompose the image again."
        )
    try:
        record = json.loads(metadata.get("record", ""))
    except ValueError as error:
        raise IFIMError(f"the record in {path} is damaged ({error}): save the decomposition again.") from error
    if not isinstance(record, dict):
        raise IFIMError(f"the record in {path} is damaged: save the decomposition again.")
    return record


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], required: Sequence[str], optional: Sequence[str]) -> None:
    """Raise IFIMError where tensors are missing or unknown, or their shapes do not belong together."""
    names = set(tensors)
    if not set(required) <= names <= {*required, *optional}:
        wrong = ", ".join(sorted((set(required) - names) | (names - {*required, *optional})))
        raise IFIMError(f"{path} lacks tensors of a decomposition, or has others ({wrong}): save the decomposition again.")
    image, components = tensors["image"].shape, tensors["eigenvalues"].shape
    whole = (*components, *image[1:])
    expected = {"high": image, "low": image, "sensitivity": image, "eigenvectors": whole, "eigenimages": whole}
    expected |= {"sensitivity_error": image}
    expected |= dict.fromkeys(("rank", "trace", "trace_error", "error_bound", "converged", "answer_voxels"), image[:1])
    expected |= {"residuals": components, "locality_radius": components}
    wrong = ", ".join(name for name, shape in expected.items() if name in tensors and tuple(tensors[name].shape) != tuple(shape))
    if wrong or components[:1] != image[:1] or any(values.shape[:1] != image[:1] for values in tensors.values()):
        raise IFIMError(f"the shapes of tensors in {path} do not belong together ({wrong}): save the decomposition again.")
