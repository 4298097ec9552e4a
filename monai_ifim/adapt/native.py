"""Carry maps from the network's grid to the input's own by the inverse of the preprocessing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, InvertibleTransform, ToTensor, ToTensord, Transform, Transpose, Transposed
from monai.utils.enums import TraceKeys
from torch import Tensor

from monai_ifim.io import GeometryError
from monai_ifim.io.errors import innermost
from monai_ifim.io.geometry import Affine, same_grid, world_affine


def network_affine(image: MetaTensor, preprocessing: Compose | None) -> Affine:
    """Affine of the network's grid in RAS+ mm.

    Raises GeometryError where MONAI has lost it: an axis was swapped, or a plane taken out of a volume, untold.
    """
    steps = () if preprocessing is None else preprocessing.flatten().transforms
    if any(isinstance(step, (Transpose, Transposed)) for step in steps):
        raise GeometryError("Transpose in the preprocessing swaps axes but not MONAI's affine: choose space='native'.")
    if image.ndim == 3 and len(native_shape(image)) == 3:
        raise GeometryError(
            "the network's input is a plane of a volume, and its affine does not state which: choose space='scanner'."
        )
    return world_affine(image.affine.cpu().numpy(), image.meta)


def native_affine(image: MetaTensor) -> Affine:
    """Affine of the input's own grid in RAS+ mm, as its reader gave it; identity where its format has none (PNG)."""
    original = image.meta.get("original_affine")
    if original is None:
        original = MetaTensor.get_default_affine() if image.applied_operations else image.affine
    return world_affine(original.cpu().numpy() if isinstance(original, Tensor) else original, image.meta)


def native_shape(image: MetaTensor) -> tuple[int, ...]:
    """[*spatial] of the input's own grid, without trailing axes of size one beyond the second."""
    return _trimmed(tuple(int(size) for size in image.meta.get("spatial_shape", image.shape[1:])))


def carry_to_native(maps: Tensor, image: MetaTensor, preprocessing: Compose | None, key: str) -> Tensor:
    """Maps [n, *network grid] on the input's grid, [n, *native grid].

    image: the preprocessed image [channel, *network grid] with its applied operations; key: its name in a dictionary
    pipeline. Only spatial transforms are inverted: they are linear, so that high + low = input holds there too.
    Raises GeometryError where the inverse does not lead back to the input's grid.
    """
    if preprocessing is None:
        if image.applied_operations:
            raise GeometryError(
                "the native grid needs the inverse of the preprocessing: pass preprocessing=, or choose space='network'."
            )
        return maps
    stacked = MetaTensor(maps.detach().cpu())
    stacked.copy_meta_from(image.cpu())
    inverted = _invert(stacked, image, preprocessing, key)
    _check_arrival(inverted, image)
    return inverted.as_subclass(Tensor)


def _invert(stacked: MetaTensor, image: MetaTensor, preprocessing: Compose, key: str) -> MetaTensor:
    for transform in preprocessing.flatten().transforms:  # such transforms leave no trace that could give them away later
        if isinstance(transform, (ToTensor, ToTensord)):
            raise GeometryError(
                f"{type(transform).__name__} in the preprocessing removes MONAI's trace of applied operations: use "
                "EnsureType instead, or choose space='network'."
            )
        spatial = type(transform).__module__.startswith(("monai.transforms.spatial", "monai.transforms.croppad"))
        if spatial and not isinstance(transform, InvertibleTransform):
            raise GeometryError(f"{type(transform).__name__} in the preprocessing has no inverse: choose space='network'.")
    _check_identities(image, preprocessing)
    dictionary = any(hasattr(transform, "keys") for transform in preprocessing.flatten().transforms)
    try:
        if not dictionary:
            stacked.applied_operations = deepcopy(image.applied_operations)
            result: Any = preprocessing.inverse(stacked)
        else:
            inverse = Invertd(keys="maps", transform=preprocessing, orig_keys=key, nearest_interp=False, to_tensor=True)
            result = inverse({"maps": stacked, key: image.cpu()})["maps"]
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if "most recently applied" in innermost(error):  # MONAI tells transforms apart by their identity
            raise _another_preprocessing(innermost(error)) from error
        raise GeometryError(f"the preprocessing cannot be inverted ({innermost(error)}): {_elsewhere(image)}.") from error
    return result if isinstance(result, MetaTensor) else MetaTensor(result)


def _check_identities(image: MetaTensor, preprocessing: Compose) -> None:
    """Raise GeometryError for a trace whose id belongs to a transform of another class.

    MONAI's traces tell transforms apart by id(), and Python gives the id of a transform that is gone to the next object.
    """
    classes = _class_names(preprocessing)
    for operation in image.applied_operations:
        made_by, now = operation.get(TraceKeys.CLASS_NAME), classes.get(operation.get(TraceKeys.ID))
        if now is not None and made_by != now:
            raise _another_preprocessing(f"its trace names {made_by}, in whose place there is a {now} now")


def _class_names(preprocessing: Compose) -> dict[Any, str]:
    """id -> class of every transform in a preprocessing, those inside others too: Resized leaves the trace of its Resize."""
    found: dict[Any, str] = {}
    waiting: list[Any] = [preprocessing]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, Transform) and id(item) not in found:
            found[id(item)] = type(item).__name__
            waiting.extend(vars(item).values())
    return found


def _another_preprocessing(reason: str) -> GeometryError:
    return GeometryError(
        f"the image was made by another preprocessing than the one given ({reason}): pass the same object, or "
        "choose space='network'."
    )


def _check_arrival(inverted: MetaTensor, image: MetaTensor) -> None:
    """Shape and place after the inverse must be those of the input."""
    found, wanted = _trimmed(tuple(inverted.shape[1:])), native_shape(image)
    if found != wanted:
        raise GeometryError(
            f"the inverse of the preprocessing gives a grid of {found}, but the input has {wanted}: a spatial transform in "
            f"it has no inverse; {_elsewhere(image)}."
        )
    if not same_grid(world_affine(inverted.affine.cpu().numpy(), image.meta), native_affine(image), wanted):
        raise GeometryError(
            "the inverse of the preprocessing gives another position in the world than the input's: a spatial transform in it "
            "loses the affine; choose space='network'."
        )


def _elsewhere(image: MetaTensor) -> str:
    """The space that needs no inverse: of a plane taken out of a volume the network's grid has no known place."""
    plane = image.ndim == 3 and len(native_shape(image)) == 3
    return f"choose space='{'scanner' if plane else 'network'}'"


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without a third axis of one: a single slice is read as H x W by some readers and as H x W x 1 by others."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
