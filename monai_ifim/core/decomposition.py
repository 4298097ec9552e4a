"""The result of `decompose`: tensors and a record, plain data that moves, saves and loads without the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monai_ifim.core.coordinates import TABLES, Coordinates
from monai_ifim.core.decomposition_file import read_decomposition, write_decomposition
from monai_ifim.core.errors import IFIMError, ImageError
from monai_ifim.core.operator.rows import all_finite
from monai_ifim.core.projection import split
from monai_ifim.core.saturation import Saturation, saturation_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition:
    """Decomposition of a batch of images, each by its own iFIM (arXiv:2606.16362).

    eigenvalues: [B, r] float64, the kept ones, descending, zero-padded; nats per (unit of the image)^2, or of the metric.
    eigenvectors: [B, r, channel, *spatial], orthonormal, zero where the eigenvalue is padding.
    eigenimages: [B, r, channel, *spatial], M u_i, the change of the image that one unit along u_i makes; without a metric the
    eigenvectors themselves.
    rank: [B] int64, components kept. trace: [B] float64, of all of F; trace_error: [B] float64, its standard error, 0 where all
    of F was computed.
    spectrum: [B, n] float64, every nonzero eigenvalue computed, kept or not, zero-padded.
    image, high, low: [B, channel, *spatial], high + low = image.
    sensitivity: [B, channel, *spatial] float64, diag F: of the whole spectrum computed, and of the matrix-free method of all of
    F, the part outside of it estimated from random columns. sensitivity_error: its standard error, where it is an estimate,
    else None. logits, probabilities: [B, C], or maps of a segmentation.
    error_bound: [B] float64, upper bound of the share of the trace that was not computed, with the confidence in `record`.
    residuals: [B, r] float64, bounds of |F u - l u|, zero for the exact method. converged: [B] bool, False where the iteration
    ended before every component asked for was within the tolerance: the components are then its best ones.
    locality_radius: [B, r] float64, where `decompose` was asked for it, else None; `core.locality_radius` makes it later.
    answer_tolerances: [B, L] float64, of an answer of volumes the standard deviation of each label's, in its unit; else None.
    answer_slopes: [B, L] float64, by how much one unit along its own steepest direction changes each volume: the length of its
    gradient. answer_changes: [B, r, L] float64, by how much one unit along each kept component changes each, with its sign. None
    where the columns that hold the gradients were not all computed. L is 1 for an answer about one label.
    answer_voxels: [B] int64, voxels of the output that a restricted answer is about, else None.
    coordinates: F pulled back to changes that have a name and a unit, where they were asked for, else None.
    record: settings, method, products and versions as plain data.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    eigenimages: Tensor
    rank: Tensor
    trace: Tensor
    spectrum: Tensor
    image: Tensor
    high: Tensor
    low: Tensor
    sensitivity: Tensor
    sensitivity_error: Tensor | None
    logits: Tensor
    probabilities: Tensor
    trace_error: Tensor
    error_bound: Tensor
    residuals: Tensor
    converged: Tensor
    locality_radius: Tensor | None
    record: dict[str, Any]
    answer_tolerances: Tensor | None = None
    answer_slopes: Tensor | None = None
    answer_changes: Tensor | None = None
    answer_voxels: Tensor | None = None
    coordinates: Coordinates | None = None

    @property
    def energy(self) -> Tensor:
        """Share of the trace that the kept components hold, [B] float64; 1 where F = 0."""
        held = (self.eigenvalues.sum(1) / self.trace).clamp(max=1.0)
        return torch.where(self.trace > 0, held, 1.0)

    @property
    def status(self) -> tuple[str, ...]:
        """How the iteration of each image ended: "converged" or "not converged"."""
        return tuple(map(status_of, self.converged.tolist()))

    @property
    def saturation(self) -> tuple[Saturation, ...]:
        """Of each image, what a change as large as its own contrast could move at most, and whether the answer is saturated."""
        own = self.eigenimages is self.eigenvectors
        return tuple(
            saturation_of(
                self.image[b],
                self.eigenvalues[b, : int(self.rank[b])],
                None if own else self.eigenimages[b, : int(self.rank[b])],
                float(self.trace[b]),
                bool(self.converged[b]),
            )
            for b in range(self.rank.numel())
        )

    def project(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(high, low) of another image [B, channel, *spatial] in this one's subspace.

        Raises ImageError for another shape, and for NaN or infinite values, one of which would spoil all of the split.
        """
        if not isinstance(image, Tensor):
            raise ImageError(f"the image is {type(image).__name__}: pass a torch tensor [B, channel, *spatial].")
        if not all_finite(image.detach()):
            raise ImageError("the image holds NaN or infinite values: mask or clip them first (torch.nan_to_num).")
        return split(self.eigenvectors, image.detach().as_subclass(Tensor))

    def answer_gradients(self) -> Tensor:
        """Gradient of each label's volume, [B, L, channel, *spatial] float64, per unit of the image, or of the metric.

        It lies in the span of the eigenvectors, so all of them must be kept. Raises IFIMError where they were not, and for an
        answer that is not volumes.
        """
        if self.answer_changes is None:
            raise IFIMError("no gradients: decompose with head='volumes' or 'volumes_bernoulli', and method='exact' or 'auto'.")
        if bool((self.rank < (self.spectrum > 0).sum(1)).any()):
            raise IFIMError("the gradients need every component, and some were left out: decompose with energy=1.0.")
        return torch.einsum("brl,br...->bl...", self.answer_changes, self.eigenvectors.to(self.answer_changes))

    def to(self, device: torch.device | str | int) -> Decomposition:
        """The decomposition with its tensors on `device`; float64 stays on the CPU where the device has none (Apple's MPS)."""
        wanted = torch.device(device)
        return _with_tensors(self, lambda values: on_device(values, wanted))

    def cpu(self) -> Decomposition:
        """The decomposition with its tensors on the CPU."""
        return self.to("cpu")

    def save(self, file: str | PathLike[str]) -> None:
        """Write tensors and record to a safetensors file, whole or not at all; raises IFIMError where that fails."""
        write_decomposition(file, tensors_of(self), self.record)

    @classmethod
    def load(cls, file: str | PathLike[str]) -> Decomposition:
        """The decomposition in a file of `save`, on the CPU. Nothing in the file is executed.

        Raises IFIMError for a file that is missing, damaged, of other content or of another version.
        """
        tensors, record = read_decomposition(file, required=_REQUIRED, optional=(*_OPTIONAL, *_OF_COORDINATES))
        tensors.setdefault("eigenimages", tensors["eigenvectors"])
        pulled = _coordinates_of(tensors, record)
        return cls(**{name: tensors.get(name) for name in TENSORS}, record=record, coordinates=pulled)  # type: ignore[arg-type]

    def plot(
        self,
        index: int = 0,
        channel: int = 0,
        components: int = 3,
        point: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        orientation: Sequence[str] | None = None,
    ) -> Figure:
        """Figure of one image of the batch: spectrum, answer, image, high, low, sensitivity, leading eigenvectors.

        index, channel: which image, which channel. components: eigenvectors drawn, at most those kept. point: indices of the
        voxel that the three planes of a volume go through, by default the most sensitive one. class_names: of the network's
        outputs, in their order; without them outputs go by their numbers. orientation: the side of the patient that each axis
        runs to, such as "LPS" or `nibabel.aff2axcodes(image.affine)`; planes then lie as readers of medical images expect them.
        Without it arrays are drawn as they lie in memory. Voxels are squares; a pointed colour bar marks values beyond its ends.
        Images of more than 1024 voxels on a side are drawn smaller, which the heading states. The figure's axes carry labels
        ("spectrum", "sensitivity", "high, axis 0", ...).
        Raises ImageError for an index, channel or point out of range, another number of names than of outputs, or letters that
        are no orientation.
        """
        figure: Figure = _display().draw(
            self, index, channel, components, point, class_names=class_names, orientation=orientation
        )
        return figure

    def view(
        self,
        overlay: str | None = None,
        index: int = 0,
        channel: int = 0,
        point: Sequence[int] | None = None,
        affine: Any = None,
        orientation: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        height: int = 480,
    ) -> Any:
        """Interactive view of one image of the batch in a notebook: the image, and a map over it. Needs the extra `notebook`.

        overlay: "sensitivity", "high", "low", "eigenvector 1" and so on, or "none"; by default the sensitivity, and nothing
        where the answer is saturated. affine: [4, 4], voxel indices to RAS millimetres, of a MetaTensor its `affine`; sides of
        the patient and proportions are then true. height: of the picture, in pixels. The other arguments are those of `plot`,
        and so are the colours and their limits; as in the viewer, a map is transparent below a fifth of its limit.
        Returns an ipywidgets.VBox whose second child is the ipyniivue.NiiVue; its volumes hold the maps as float32, divided by
        a power of ten where their limits are very small or large.
        Raises IFIMError where ipyniivue is not installed, and ImageError for the arguments that `plot` refuses, a map that does
        not exist, and a matrix that places nothing.
        """
        from monai_ifim.display import niivue

        return niivue.view(self, overlay, index, channel, point, affine, orientation, class_names, height)

    def __repr__(self) -> str:
        return str(_display().repr_text(self))

    def _repr_html_(self) -> str:
        """What notebooks show: a table of the first images and the picture of the first."""
        return str(_display().notebook_html(self))


TENSORS = tuple(field.name for field in fields(Decomposition) if field.name not in ("record", "coordinates"))
ANSWERS = ("answer_tolerances", "answer_slopes", "answer_changes", "answer_voxels")
# Not in a file where they are the eigenvectors, were not asked for, or are not estimates.
_OF_COORDINATES = {f"coordinates_{name}": name for name in TABLES}
_OPTIONAL = ("eigenimages", "locality_radius", "sensitivity_error", *ANSWERS)
_REQUIRED = tuple(name for name in TENSORS if name not in _OPTIONAL)


def status_of(converged: bool) -> str:
    """How an iteration ended, in words for records."""
    return "converged" if converged else "not converged"


def tensors_of(d: Decomposition) -> dict[str, Tensor]:
    """Every tensor by the name of its field, without eigenimages that are the eigenvectors."""
    named = {name: getattr(d, name) for name in TENSORS}
    if d.eigenimages is d.eigenvectors:
        del named["eigenimages"]
    if d.coordinates is not None:
        tables = d.coordinates.tensors()
        named |= {stored: tables[name] for stored, name in _OF_COORDINATES.items()}
    return {name: values for name, values in named.items() if values is not None}


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; float64 on the CPU where the device has none (Apple's MPS)."""
    return values.to("cpu" if device.type == "mps" and values.dtype == torch.float64 else device)


def joined(parts: Sequence[Decomposition], image: Tensor) -> Decomposition:
    """One decomposition of a batch from those of its consecutive parts; image [B, channel, *spatial], the whole batch."""
    if len(parts) == 1:
        return replace(parts[0], image=image)
    named = [tensors_of(part) for part in parts]
    if any("sensitivity_error" in part for part in named):  # a part whose pairs span everything estimates nothing
        named = [{"sensitivity_error": torch.zeros_like(part["sensitivity"])} | part for part in named]
    tensors = {name: _concatenated([part[name] for part in named]) for name in named[0] if name != "image"}
    tensors.setdefault("eigenimages", tensors["eigenvectors"])
    record = parts[0].record | {
        name: max(part.record[name] for part in parts) for name in ("error_bound", "jacobian_products")
    }  # fmt: skip
    stopped = [part.record["stopped"] for part in parts if part.record["stopped"] is not None]
    record |= {"status": status_of(not stopped), "stopped": stopped[0] if stopped else None}
    if record["volumes"] is not None and record["volumes"]["voxel_volume"] is not None:
        voxels = [volume for part in parts for volume in part.record["volumes"]["voxel_volume"]]
        record["volumes"] = record["volumes"] | {"voxel_volume": voxels}
    return _with(parts[0], tensors | {"image": image}, record)


def _with_tensors(d: Decomposition, change: Callable[[Tensor], Tensor]) -> Decomposition:
    """The decomposition with each tensor replaced by what `change` makes of it."""
    changed = {name: change(values) for name, values in tensors_of(d).items()}
    changed.setdefault("eigenimages", changed["eigenvectors"])
    return _with(d, changed, d.record)


def _with(d: Decomposition, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> Decomposition:
    """The decomposition with other tensors, those of its coordinates among them, and this record."""
    own = {name: values for name, values in tensors.items() if name not in _OF_COORDINATES}
    pulled = None if d.coordinates is None else d.coordinates.with_tensors(_tables(tensors))
    return replace(d, **own, record=record, coordinates=pulled)


def _coordinates_of(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Coordinates | None:
    """The coordinates in a file; None where it has none. Raises IFIMError where their tables or their names are missing."""
    tables, described = _tables(tensors), record.get("coordinates")
    if not tables and not described:
        return None
    if len(tables) < len(TABLES) or not isinstance(described, dict):
        raise IFIMError("the file lacks tables or names of its coordinates: save the decomposition again.")
    return Coordinates.of_description(described, tables)


def _tables(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[stored] for stored, name in _OF_COORDINATES.items() if stored in tensors}


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    """The parts along the batch axis; where their second axes, of components or eigenvalues, differ, zero-padded."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=0)
    return torch.cat([_padded(part, width) for part in parts])


def _padded(values: Tensor, width: int) -> Tensor:
    """Zero-padded to `width` along the second axis, if there is one."""
    if values.ndim < 2 or values.shape[1] == width:
        return values
    missing = values.new_zeros(values.shape[0], width - values.shape[1], *values.shape[2:])
    return torch.cat([values, missing], dim=1)


def _display() -> Any:
    """The module that shows decompositions, imported when one is shown: the only import from core upwards."""
    from monai_ifim.display import html

    return html
