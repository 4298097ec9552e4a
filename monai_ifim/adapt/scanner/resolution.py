"""Resolution of scanner space: the scale of the changes that are decomposed, as a low-pass input metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground, EnsureType, EnsureTyped
from monai.transforms.traits import LazyTrait
from torch import Tensor

from monai_ifim.adapt.scanner.preprocessing import ScanPreprocessing
from monai_ifim.core import IFIMError, Metric
from monai_ifim.core.operator.metric import GaussianLowPass
from monai_ifim.io.geometry import full_affine

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # full width at half maximum of a Gaussian of unit standard deviation


class HeldZeros(Metric):
    """A low-pass filter that leaves voxels of zero as they are: M = D G D, D = 1 where `scan` [channel, *spatial] is not zero."""

    unit: ClassVar[str] = GaussianLowPass.unit
    symmetric: ClassVar[bool] = True

    def __init__(self, low_pass: GaussianLowPass, scan: Tensor) -> None:
        self.low_pass, self.moving = low_pass, scan.detach().as_subclass(Tensor) != 0

    def apply(self, images: Tensor) -> Tensor:
        """See `Metric`."""
        return self.low_pass.apply(images * self.moving) * self.moving

    def describe(self) -> dict[str, Any]:
        """See `Metric`."""
        return self.low_pass.describe()


def low_pass(
    pipeline: ScanPreprocessing, scan: MetaTensor, resolution: float | str, zeros_held: bool
) -> tuple[Metric, list[float]]:
    """The metric for a scan [channel, *spatial] and its full widths at half maximum along each axis, mm, 0 for none."""
    spacing = _spacing(scan)
    widths = _network_widths(pipeline, scan) if resolution == "network" else [float(resolution)] * len(spacing)
    metric = GaussianLowPass([float(width / FWHM / own) for width, own in zip(widths, spacing, strict=True)])
    return HeldZeros(metric, scan) if zeros_held else metric, widths


def _network_widths(pipeline: ScanPreprocessing, scan: MetaTensor) -> list[float]:
    """The network's voxel size along each axis of the scan; 0 if it is not larger than the scan's."""
    seen = affine_after(pipeline, scan)
    _check_affine(pipeline, scan, seen)
    spacing = _spacing(scan)
    directions = _affine(scan)[:3, : len(spacing)] / spacing
    steps = 1.0 / np.linalg.norm(np.linalg.pinv(seen[:3, :3]) @ directions, axis=0)
    return [float(step) if step > 1.001 * own else 0.0 for step, own in zip(steps, spacing, strict=True)]


def affine_after(pipeline: ScanPreprocessing, scan: MetaTensor) -> Any:
    """Affine [4, 4] in mm of the network's input that the preprocessing makes of a scan [channel, *spatial].

    Where every step keeps the geometry, or changes it whatever the voxels hold, no voxel is resampled: MONAI's lazy
    evaluation keeps account of shapes and affines. The preprocessing runs where that is not so.
    """
    parts = [part for step in pipeline.steps if step.equivalent is None for part in step.parts]
    moving = [part for part in parts if not _keeps_geometry(part)]
    with torch.no_grad():
        if not all(_moves_blindly(part) for part in moving):
            return _affine(pipeline(scan.clone()))
        empty = torch.zeros((), dtype=scan.dtype, device=scan.device).expand(scan.shape)  # one voxel in memory
        seen = MetaTensor(empty, affine=scan.affine, meta={name: value for name, value in scan.meta.items() if name != "affine"})
        key = pipeline.whole.key
        for part in moving:
            seen = part(seen, lazy=True) if key is None else part({key: seen}, lazy=True)[key]
    return full_affine(seen.peek_pending_affine().cpu().numpy())


def _moves_blindly(transform: Any) -> bool:
    """True for a spatial transform that does not depend on voxel values."""
    looking = isinstance(transform, CropForeground)  # of which MONAI 1.6 says otherwise
    return isinstance(transform, LazyTrait) and not looking and not transform.requires_current_data


def _keeps_geometry(transform: Any) -> bool:
    """True for a transform that changes only intensities or the data type."""
    if isinstance(transform, (EnsureType, EnsureTyped)):
        return bool(getattr(transform, "converter", transform).track_meta)
    return type(transform).__module__.startswith("monai.transforms.intensity.")


def _check_affine(pipeline: ScanPreprocessing, scan: MetaTensor, seen: Any) -> None:
    """Raise IFIMError if the preprocessing loses the affine of the network's input."""
    swapped = [name for step in pipeline.steps for name in step.names if name.startswith("Transpose")]
    lost = np.array_equal(seen, np.eye(4)) and not np.array_equal(_affine(scan), np.eye(4))
    if swapped or lost:
        cause = f"{swapped[0]} swaps axes but not MONAI's affine" if swapped else "the affine is lost"
        raise IFIMError(
            f"resolution='network' needs the network's voxel size, and in the preprocessing {cause}: give millimetres."
        )


def _spacing(scan: MetaTensor) -> Sequence[float]:
    sizes: Sequence[float] = np.linalg.norm(_affine(scan)[:3, : scan.ndim - 1], axis=0)
    return sizes


def _affine(image: MetaTensor) -> Any:
    affine = image.affine
    return full_affine(affine.cpu().numpy() if isinstance(affine, Tensor) else affine)
