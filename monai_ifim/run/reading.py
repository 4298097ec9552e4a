"""Reads the image of a case: from its opened input to what the network takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.utils import TraceKeys
from torch import Tensor

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.adapt.resampling import resampled_voxels
from monai_ifim.adapt.scan import scan_of
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.adapt.tied_channels import EACH_ASKED_FOR, Tie, find_tie
from monai_ifim.io import InputError, OpenedSource
from monai_ifim.io.dicom.reader import known_volume
from monai_ifim.io.hidden_names import unnamed
from monai_ifim.io.limits import Limits
from monai_ifim.io.parametric_map.source import ReferencedSeries, referenced_series
from monai_ifim.io.scan import Scan
from monai_ifim.io.stated_size import check_size
from monai_ifim.run.settings import RunSettings


@dataclass(frozen=True)
class ReadImage:
    """The image [channel, *spatial] of a case, ready for the network; in scanner space, the scan itself.

    scan: the input in its own units; series: what Parametric Maps refer to; both None where they are not needed. tie: of the
    network's input, whose grey image is then `image`; in words, why its channels have none; None where there is one channel.
    """

    image: MetaTensor
    scan: Scan | None
    series: ReferencedSeries | None
    tie: Tie | str | None = None


def read_image(bundle: Bundle, opened: OpenedSource, settings: RunSettings, scratch: Path) -> ReadImage:
    """Check an input and its size, read it and prepare its image; scratch: a folder for files that are made for the reader.

    Raises InputError, and what the bundle's steps raise.
    """
    opened.check(bundle.channels)
    check_size(opened, settings.limits)
    series = referenced_series(opened) if settings.case.dicom_pm else None
    path = opened.readable_path(scratch)
    if settings.case.case_names == "hash":
        path = unnamed(path, scratch, f"input-{opened.digest[:16]}")
    with known_volume(path, opened.readable_volume):
        read = bundle.read(path, dict(opened.source.beside))
    name, found = opened.source.path.name, read[bundle.file_key]
    _check_voxels(bundle, found, name, settings.limits)
    if settings.case.space == "scanner":
        image = _as_scan(found)
        bundle.check_axes(image, path)
        return ReadImage(image, None, series)
    scan = scan_of(found, opened.unit) if settings.case.space == "native" else None
    changeable = _changeable(bundle, read, settings.case)
    image = bundle.prepare(read, path)
    settings.limits.check_voxels(name, image.numel(), "as prepared for the network")
    _forget_identities(image.applied_operations)
    if image.shape[0] == 1:
        return ReadImage(image, scan, series)
    tie = EACH_ASKED_FOR if changeable is None else _tie(bundle, changeable, image)
    return ReadImage(tie.grey if isinstance(tie, Tie) else image, scan, series, tie)


def _changeable(bundle: Bundle, data: dict[str, Any], settings: CaseSettings) -> dict[str, Any] | None:
    """A copy of what was read, because the preprocessing may write into it; None where no tie of channels is looked for."""
    if settings.channels == "each" or bundle.channels == 1:
        return None
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in data.items()}


def _tie(bundle: Bundle, data: dict[str, Any], image: MetaTensor) -> Tie | str:
    return find_tie(lambda changed: bundle.prepared_again(data, changed), data[bundle.file_key], image)


def _check_voxels(bundle: Bundle, read: Any, name: str, limits: Limits) -> None:
    """Raise LimitError for an image that has too many voxels as read, which a reader of the bundle's may only now tell, or once
    it is resampled."""
    limits.check_voxels(name, read.numel())
    if limits.voxels and isinstance(read, MetaTensor):
        limits.check_voxels(name, resampled_voxels(bundle.steps, read), "when resampled by the bundle's preprocessing")


def _as_scan(read: Any) -> MetaTensor:
    if not isinstance(read, MetaTensor):
        raise InputError("the bundle's preprocessing reads images without their metadata: keep track_meta on.")
    return read


def _forget_identities(trace: Any) -> None:
    """Remove object identities from a trace, so that the writer's copies of the transforms can invert it."""
    if isinstance(trace, dict):
        if TraceKeys.ID in trace:
            trace[TraceKeys.ID] = TraceKeys.NONE
        trace = list(trace.values())
    if isinstance(trace, list):
        for entry in trace:
            _forget_identities(entry)
