"""Scanner space: decomposes the scan itself, on its own grid and in its own unit, through network and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor
from monai.transforms import Compose
from torch import Tensor, nn

from monai_ifim.adapt.answer_facts import facts_of_images
from monai_ifim.adapt.image_places import place_of_scan
from monai_ifim.adapt.native import network_affine
from monai_ifim.adapt.scanner.noise import NoiseMap
from monai_ifim.adapt.scanner.preprocessing import ScanPreprocessing, reading_of, scan_preprocessing, squeezed
from monai_ifim.adapt.scanner.resolution import low_pass
from monai_ifim.adapt.scanner.step_checks import is_discontinuous_at_zeros
from monai_ifim.adapt.settings import CaseSettings, Resolution, checked_resolution
from monai_ifim.core import Decomposition, IFIMError
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.batches import Progress
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.determinism import deterministic_algorithms
from monai_ifim.core.heads.choice import answers_at_every_voxel
from monai_ifim.core.operator.predictor import Predictor, owner_of
from monai_ifim.core.settings import Settings, SettingsShortcuts
from monai_ifim.core.solvers.watch import Watch
from monai_ifim.io import GeometryError, InputError
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.errors import redacted, unquoted
from monai_ifim.io.geometry import full_affine
from monai_ifim.options import Statistics


class ScannerNetwork(nn.Module):
    """The network after the preprocessing, a function of scans [B, channel, *spatial] that all have `scan`'s geometry.

    ends_in: the network, whose last operation is this one's. zeros_held: voxels of zero have no gradient.
    """

    def __init__(
        self, network: Callable[..., Any], preprocessing: ScanPreprocessing, scan: MetaTensor, zeros_held: bool = False
    ) -> None:
        super().__init__()
        self.zeros_held = zeros_held
        self.ends_in, self.preprocessing = Predictor(owner_of(network), 1).bare, preprocessing
        self.training = self.ends_in.training if isinstance(self.ends_in, nn.Module) else False
        self.affine, self.meta = scan.affine.clone(), {name: value for name, value in scan.meta.items() if name != "affine"}

    def forward(self, scans: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The network's output for the scans."""
        if self.zeros_held:
            scans = torch.where(scans == 0, scans.detach(), scans)
        places = range(len(scans))  # unbind's views may not be written into, as some transforms do
        inputs = [self.preprocessing(self._placed(scans[place])).as_subclass(Tensor) for place in places]
        return self.ends_in(torch.stack(inputs).to(scans.dtype), *args, **kwargs)  # most of MONAI's transforms end in float32

    @torch.no_grad()
    def network_input(self, scan: Tensor) -> MetaTensor:
        """What the preprocessing makes of one scan [channel, *spatial]."""
        return self.preprocessing.whole.original(self._placed(scan.clone()))

    def _placed(self, scan: Tensor) -> MetaTensor:
        return MetaTensor(scan, affine=self.affine, meta=dict(self.meta))


class ScannerSpace:
    """Decomposes scans through one preprocessing pipeline, which is probed with the first scan.

    preprocessing: a Compose, array or dictionary, with its reading steps at the head; statistics, resolution, image_key: as
    `decompose_scan`; planar: the network is 2D, so that a single slice loses its third axis first.
    Raises IFIMError for an invalid pipeline or invalid settings.
    """

    def __init__(
        self,
        preprocessing: Compose | None,
        statistics: Statistics = "differentiate",
        resolution: Resolution = None,
        image_key: str = "image",
        planar: bool = False,
    ) -> None:
        if preprocessing is None:
            raise IFIMError("space='scanner' needs the preprocessing: pass preprocessing=.")
        self.statistics: Statistics = statistics
        self.resolution = checked_resolution(resolution)
        self.image_key, self.planar = image_key, planar
        self.reading = reading_of(preprocessing)
        self.pipeline = scan_preprocessing(preprocessing, statistics, image_key)
        self._probed = False

    def settings(self, given: Settings | None = None) -> CaseSettings:
        """The settings of a decomposition in this space: those given, with this object's statistics and resolution.

        Raises IFIMError where they state others.
        """
        own = {"space": "scanner", "statistics": self.statistics, "resolution": self.resolution}
        if isinstance(given, CaseSettings):
            stated = {"statistics": given.statistics, "resolution": given.resolution}
            defaults = {name: CaseSettings.options()[name].default for name in stated}
            for name, value in stated.items():
                if value not in (defaults[name], own[name]):
                    raise IFIMError(f"{name}={value!r} in the settings and {own[name]!r} in scanner=: give it in one place.")
        return CaseSettings.of(given, own)

    def decompose(
        self,
        network: Callable[..., Any],
        scan: MetaTensor,
        settings: Settings,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        progress: bool | Progress = False,
        class_names: Sequence[str] = (),
        watch: Watch | None = None,
        modality: str = "",
    ) -> Decomposition:
        """The decomposition of one scan [channel, *spatial]; args, kwargs: of the network; name: of the scan, for the record of
        later scans that refer to its verification; progress, watch: as `decompose_with`; class_names: of the network's outputs;
        modality: as DICOM writes it, for coordinates. Raises IFIMError."""
        settings = self.settings(settings)
        scan = _as_network(network, scan)
        pipeline = squeezed(self.pipeline) if self.planar and scan.ndim == 4 and scan.shape[-1] == 1 else self.pipeline
        if not self._probed:
            pipeline.check(scan)
            self._probed = True
        names = () if name is None else (name,)
        return _decompose(network, pipeline, scan, settings, args, kwargs, names, progress, class_names, watch, modality)

    def read_again(self, batch: Tensor) -> MetaTensor:
        """Read the scan of a batch of one network input [1, channel, *spatial] again; raises InputError."""
        if batch.shape[0] != 1:
            raise InputError(
                f"a batch of {batch.shape[0]} images: space='scanner' needs a batch size of 1, as each scan has its own geometry."
            )
        names = batch.meta.get("filename_or_obj") if isinstance(batch, MetaTensor) else None
        name = names[0] if isinstance(names, (list, tuple)) and names else names
        if not isinstance(name, str) or not self.reading.transforms:
            raise InputError("the image's file is unknown: begin the preprocessing with LoadImage, with track_meta on.")
        register_dicom_reader(self.reading)
        dictionary = any(hasattr(step, "keys") for step in self.reading.transforms)
        try:
            read: Any = self.reading({self.image_key: name})[self.image_key] if dictionary else self.reading(name)
        except Exception as error:
            raise InputError(f"{Path(name).name}: cannot be read again ({unquoted(error)}).") from redacted(error)
        device = batch.device
        scan: MetaTensor = read.to(device)
        return scan


def decomposed_batch(
    settings: Settings,
    scanner: ScannerSpace | None,
    network: Callable[..., Any],
    batch: Tensor,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    facts: AnswerFacts | None = None,
) -> tuple[Decomposition, Tensor]:
    """The decomposition of network inputs [B, channel, *spatial], or, in scanner space, of the scan that a batch of one was
    made of; and what was decomposed, with its batch axis. facts: of the network inputs."""
    deterministic = isinstance(settings, CaseSettings) and settings.deterministic
    with deterministic_algorithms(deterministic, batch.device if isinstance(batch, Tensor) else "cpu"):
        if scanner is None:
            return decompose_with(settings, network, batch, args, kwargs, facts=facts), batch
        scan = scanner.read_again(batch)
        found = scanner.decompose(network, scan, settings, args, kwargs, class_names=() if facts is None else facts.class_names)
        return found, collate_meta_tensor([scan])


def decompose_scan(
    network: Callable[..., Any],
    preprocessing: Compose | Callable[..., Any],
    scan: Tensor,
    *,
    statistics: Statistics = "differentiate",
    resolution: Resolution = None,
    image_key: str = "image",
    **shortcuts: Unpack[SettingsShortcuts],
) -> Decomposition:
    """Decompose a scan by the iFIM of network after preprocessing: high + low = the scan, on its own grid, in its own unit.

    Args:
        network: as `monai_ifim.decompose`, of what the preprocessing gives.
        preprocessing: a bundle's Compose, array or dictionary; LoadImage and EnsureChannelFirst at its head are left out.
        scan: as these two give it, [channel, *spatial], a MetaTensor with its affine where spatial transforms follow.
        statistics: "differentiate" takes means, percentiles and the like for what they are, functions of the scan; "freeze" for
            constants at their value for this scan.
        resolution: decompose changes as coarse as this alone: full width at half maximum, in mm, of a Gaussian low-pass as input
            metric; "network": the network's voxel size along each axis of the scan. None: no metric.
        image_key: the scan's name in a dictionary `preprocessing`.
        shortcuts: fields of `Settings` (head, energy, rank, method, ...), as the arguments of `decompose`.

    Returns:
        A `Decomposition` of the batch of one scan [1, channel, *spatial]; `record["preprocessing"]` says what was done.

    Raises:
        IFIMError: a step is random or lets no gradient through, or the settings do not fit.
    """
    read = _as_network(network, scan if isinstance(scan, MetaTensor) else MetaTensor(scan))
    pipeline = scan_preprocessing(preprocessing, statistics, image_key)
    pipeline.check(read)
    of_scan = {"space": "scanner", "statistics": statistics, "resolution": resolution}
    return _decompose(network, pipeline, read, CaseSettings.of(Settings.of(None, shortcuts), of_scan))


def _as_network(network: Callable[..., Any], scan: MetaTensor) -> MetaTensor:
    """The scan as float64 if the network has float64 weights, else as float32."""
    owner = owner_of(network)
    weights = owner.parameters() if isinstance(owner, nn.Module) else iter(())
    wide = any(weight.dtype == torch.float64 for weight in weights)
    result: MetaTensor = scan.to(torch.float64 if wide else torch.float32)
    return result


def _decompose(
    network: Callable[..., Any],
    pipeline: ScanPreprocessing,
    scan: MetaTensor,
    settings: CaseSettings,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    progress: bool | Progress = False,
    class_names: Sequence[str] = (),
    watch: Watch | None = None,
    modality: str = "",
) -> Decomposition:
    """A scan's decomposition through a pipeline that has been probed."""
    widths: list[float] | None = None
    zeros_held = is_discontinuous_at_zeros(pipeline, scan)
    metric = settings.metric
    if settings.resolution is not None:
        metric, widths = low_pass(pipeline, scan, settings.resolution, zeros_held)
    elif isinstance(metric, NoiseMap):
        metric = metric.of(scan)
    wrapped = ScannerNetwork(network, pipeline, scan, zeros_held)
    of_scan = Settings.of(settings, {"metric": metric})
    facts = AnswerFacts(class_names=tuple(class_names))
    if answers_at_every_voxel(settings.head):
        facts = facts_of_images([wrapped.network_input(scan.as_subclass(Tensor))], class_names, settings.region)
    if settings.families:
        facts = replace(facts, places=(place_of_scan(scan, modality),))
    found = decompose_with(of_scan, wrapped, scan.as_subclass(Tensor)[None], args, kwargs, progress, names, facts, watch)
    described = pipeline.describe() | {"zeros_held": zeros_held, "resolution": settings.resolution, "resolution_mm": widths}
    if found.record["label_rule"] is not None:
        described["grids"] = _grids(pipeline, scan)
    return replace(found, record=found.record | {"settings": settings.describe(), "preprocessing": described})


def _grids(pipeline: ScanPreprocessing, scan: MetaTensor) -> dict[str, list[list[float]]] | None:
    """Affines of the grids of the network and of the scan, voxel to mm, 4 x 4; None where MONAI loses that of the network."""
    with torch.no_grad():
        prepared = pipeline.whole.original(scan.clone())
    try:
        network_affine(prepared, Compose([pipeline.whole.transform]))
    except GeometryError:
        return None
    return {name: full_affine(each.affine.cpu()).tolist() for name, each in (("network", prepared), ("scan", scan))}
