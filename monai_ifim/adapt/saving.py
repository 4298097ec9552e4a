"""`SaveIFIM` and its dictionary twin: the components of one image as NIfTI files with a sidecar."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.transforms.transform import MapTransform, Transform
from monai.utils import ensure_tuple
from torch import Tensor

from monai_ifim.adapt.collation import at_own_size
from monai_ifim.adapt.components import ERROR_MAP, FURTHER_MAPS, MAPS, record_of_image, unfold_eigenvectors
from monai_ifim.adapt.labels import segmentation_of
from monai_ifim.adapt.native import carry_to_native, native_affine, native_shape, network_affine
from monai_ifim.adapt.random_steps import drawn_steps, refuse_random
from monai_ifim.adapt.scan import read_scan
from monai_ifim.adapt.seen_image import seen_image
from monai_ifim.adapt.settings import CaseSettings, FileShortcuts, own_keywords
from monai_ifim.adapt.tied_channels import NOT_LOOKED_FOR, described_tie
from monai_ifim.io import (
    CaseFacts,
    CaseMaps,
    Companions,
    InputError,
    InputIdentity,
    ModelIdentity,
    OpenedSource,
    OutputError,
    Source,
    WrittenCase,
    identify_bundle,
    write_case,
)
from monai_ifim.io.case_folder import claimed, identity_digest
from monai_ifim.io.dicom.reader import INVERTED
from monai_ifim.io.geometry import is_photograph
from monai_ifim.io.key_table import KeyTable, refuse_told_names
from monai_ifim.io.nifti import power_below_float32, volume_shape
from monai_ifim.io.parametric_map.source import ReferencedSeries, referenced_series
from monai_ifim.io.reading import Reading
from monai_ifim.io.scan import Scan
from monai_ifim.io.sidecar import plain_affine
from monai_ifim.options import FILES

NO_METADATA = "the image carries no metadata (affine, file name): load it with MONAI's LoadImage."


class WriterArguments(FileShortcuts, total=False):
    """Arguments of `SaveIFIM` that other constructors pass to it."""

    preprocessing: Compose | None
    class_names: Sequence[str]
    bundle_root: PathLike | None


class SaveIFIM(Transform):
    """Write the components of one image: OUT/CASE/CASE_ifim_*.nii.gz and CASE_ifim.json.

    Args:
        output_dir: OUT; the case is named after the input file.
        settings: which files to write, and on which grid (`CaseSettings.space`): "native", the input's own grid through the
            inverse of `preprocessing`; "network"; "scanner", for components of the scan itself.
        preprocessing: the Compose that made the network's input, array or dictionary.
        class_names: in the order of the network's outputs.
        bundle_root: the bundle whose name, version, weights and class names the sidecar states.
        image_key: name of the image in a dictionary `preprocessing`.
        model: what the sidecar states of the model, in place of class_names and bundle_root.
        shortcuts: space, contents, dicom_pm, scene_bundle, which replace those of `settings`.

    Raises:
        OutputError, IFIMError: invalid settings, or an unknown name among the shortcuts.
    """

    def __init__(
        self,
        output_dir: PathLike,
        settings: CaseSettings | None = None,
        *,
        preprocessing: Compose | None = None,
        class_names: Sequence[str] = (),
        bundle_root: PathLike | None = None,
        image_key: str = "image",
        model: ModelIdentity | None = None,
        **shortcuts: Unpack[FileShortcuts],
    ) -> None:
        self.settings = CaseSettings.of(settings, shortcuts, FILES, own_keywords(SaveIFIM))
        self.output_dir = Path(output_dir)
        refuse_random(preprocessing, "so an augmented image would be written: remove it, or set its prob to 0.")
        self.preprocessing = preprocessing
        self.image_key = image_key
        names = ensure_tuple(class_names)
        if model is None:
            model = ModelIdentity(class_names=names) if bundle_root is None else identify_bundle(Path(bundle_root), names)
        self.model = model

    def __call__(
        self,
        img: Tensor,
        components: Mapping[str, Any],
        source: Source | None = None,
        case: str | None = None,
        scan: Scan | None = None,
    ) -> Path:
        """Write the files of one image; returns the sidecar's path.

        img: the network's input [channel, *spatial] as MetaTensor, or, in scanner space, the scan or what was made of it;
        components: what `IFIMDecompose` or, decollated, `IFIMInferer` gave for it; source: the input, by default the file
        that the image's metadata names; case: the name to write under, by default the input's base name. Where the folder of that
        name holds the case of another input, digits of the input's hash are added; scan: the input in its own units, by default
        read again.
        Raises GeometryError, InputError, OutputError.
        """
        if not isinstance(img, MetaTensor):
            raise InputError(NO_METADATA)
        return self.write(img, components, OpenedSource(source or _source_of(_file_of(img))), case, scan).path

    def write(
        self,
        img: MetaTensor,
        components: Mapping[str, Any],
        opened: OpenedSource,
        case: str | None = None,
        scan: Scan | None = None,
        series: ReferencedSeries | None = None,
    ) -> WrittenCase:
        """As a call, for an opened input; series: its `referenced_series`, read here if needed and not given."""
        file, record = _file_of(img), record_of_image(components)
        img, components = at_own_size(img, components)
        self._check_drawn(img)
        if (record.get("preprocessing") is not None) != (self.settings.space == "scanner"):
            raise OutputError(
                f"space={self.settings.space!r} does not fit these components: use 'scanner' for components made with "
                "scanner=, and for no others."
            )
        source = opened.source
        there = source.path.exists()
        if there:
            opened.check_own()
        stated, native = record.get("segmentation"), self.settings.space == "native"
        labels, stated = segmentation_of(img, components, stated, self.preprocessing, self.model.class_names, native)
        maps, record = replace(self._maps(img, components), segmentation=labels), record | {"segmentation": stated}
        unit = opened.unit
        identity = InputIdentity(
            file=source.path.name,
            sha256=opened.digest if there else None,
            shape=volume_shape(native_shape(img)),
            affine=plain_affine(native_affine(img)),
            reader=_reader_of(img),
            frame=source.frame,
            series=source.series,
            resampled=opened.resampled,
            beside=opened.beside,
            files=[file.described() for file in opened.hashed] if there else (),
            reading=_reading(img, opened) if there else Reading(),
            choice=opened.choice,
        )
        of_maps = {"unit": unit} if self.settings.space == "scanner" else {}
        record = _with_channels(record, len(maps.input), self.settings.space)
        seen = seen_image(img, opened if there else None, prepared=self.settings.space != "scanner")
        record = record | {
            "settings": self.settings.written(record["settings"]),
            "departures": self.model.intended_use.departures(seen),
        }
        facts = CaseFacts(identity, self.model, self.settings.space, record, **of_maps)
        scan = self._scan(img, maps, scan, file, unit)
        if self.settings.dicom_pm and series is None:
            series = referenced_series(opened)
        if there:
            opened.refuse_changed()
        beside = Companions(scan, series if self.settings.dicom_pm else None, self.settings.scene_bundle)
        with claimed(self.output_dir, case or self._name(opened), opened) as name:
            if self.key_table is not None:
                facts = replace(facts, input=identity.without_names(f"{name}{source.suffix}"))
            return write_case(self.output_dir, name, maps, self.settings.contents, facts, beside)

    @cached_property
    def key_table(self) -> KeyTable | None:
        """The table of pseudonyms beside the output, made at the first use; None with case_names="path"."""
        if self.settings.case_names == "hash":
            return KeyTable.beside(self.output_dir)
        refuse_told_names(self.output_dir)
        return None

    def _name(self, opened: OpenedSource) -> str:
        table = self.key_table
        if table is None:
            return opened.source.name
        return table.pseudonym(opened) if opened.source.path.exists() else table.provisional(identity_digest(opened))

    def _check_drawn(self, img: MetaTensor) -> None:
        """Raise InputError for an image that was augmented; with its preprocessing at hand that is known already."""
        drawn = drawn_steps(img) if self.preprocessing is None else []
        if drawn:
            raise InputError(
                f"{', '.join(drawn)} changed the image at random, so an augmented image would be written: remove it from the "
                "preprocessing, or set its prob to 0."
            )

    def _scan(self, img: MetaTensor, maps: CaseMaps, given: Scan | None, file: Path | None, unit: str) -> Scan | None:
        """The scan on the maps' grid; None if they lie on the network's, if it is their input, or if it cannot be read."""
        if self.settings.space != "native":
            return None
        if given is not None and given.lies_on(native_shape(img), maps.affine):
            return given
        return None if file is None else read_scan(img, file, unit)

    def _maps(self, img: MetaTensor, components: Mapping[str, Any]) -> CaseMaps:
        """All maps on the grid to write, resampled together."""
        channels = components["ifim_high"].shape[0]
        rank = int(components["ifim_rank"])
        names = MAPS if components.get(ERROR_MAP) is None else (*MAPS, ERROR_MAP)
        pieces = [_decomposed(img, components)] + [components[name].as_subclass(Tensor) for name in names]
        pieces = [piece.detach().cpu() for piece in pieces]
        exponent = power_below_float32(float(pieces[3].max()))
        for place in (3, *range(5, len(pieces))):  # sensitivity and its error
            pieces[place] = (pieces[place].to(torch.float64) * 10.0**-exponent).to(pieces[0].dtype)
        pieces[4] = unfold_eigenvectors(pieces[4], channels, rank).flatten(0, 1)
        if self.settings.space == "native":
            del pieces[2]  # low: the inverse is linear, so that it is what high leaves of the image there too
            carried = carry_to_native(torch.cat(pieces), img, self.preprocessing, self.image_key)
            pieces = list(torch.split(carried, [len(piece) for piece in pieces]))
            pieces.insert(2, pieces[0] - pieces[1])
        affine = network_affine(img, self.preprocessing) if self.settings.space == "network" else native_affine(img)
        shown, high, low, sensitivity, eigenvectors, *error = (piece.to(torch.float32).numpy() for piece in pieces)
        eigenvectors = eigenvectors.reshape(rank, channels, *eigenvectors.shape[1:])
        of_error = {"sensitivity_error": error[0]} if error else {}
        return CaseMaps(affine, shown, high, low, sensitivity, eigenvectors, 10.0**exponent, **of_error)


class SaveIFIMd(MapTransform):
    """Dictionary twin of `SaveIFIM`.

    keys: either the entry with the mapping that `IFIMInferer` returned (usually "pred", decollated), or the image that
    `IFIMDecomposed` decomposed, whose components then lie beside it under `prefix`.
    image_key: the image, where keys names the components. Other arguments: as `SaveIFIM`. The data passes unchanged.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        settings: CaseSettings | None = None,
        *,
        image_key: str = "image",
        prefix: str = "ifim",
        allow_missing_keys: bool = False,
        **writing: Unpack[WriterArguments],
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.prefix = image_key, prefix
        self.writer = SaveIFIM(output_dir, settings, image_key=image_key, **writing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files of every key."""
        for key in self.key_iterator(dict(data)):
            if isinstance(data[key], Mapping):
                self.writer(data[self.image_key], data[key])
            else:
                self.writer(data[key], self._beside(data))
        return dict(data)

    def _beside(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        names = (*MAPS, "ifim_rank", *FURTHER_MAPS)
        found = {name: data.get(f"{self.prefix}{name.removeprefix('ifim')}") for name in names}
        missing = [name for name, values in found.items() if values is None and name not in FURTHER_MAPS]
        if missing:
            raise InputError(
                f"no {', '.join(missing)} in the data: put IFIMDecomposed before SaveIFIMd, with the same prefix for both."
            )
        return found


SaveIFIMD = SaveIFIMDict = SaveIFIMd


def _with_channels(record: dict[str, Any], channels: int, space: str) -> dict[str, Any]:
    """The record; of several channels whose tie nobody looked for, it says that each was decomposed as one of its own."""
    if channels == 1 or space == "scanner" or record.get("tied_channels") is not None:
        return record
    settings = record["settings"] | {"channels": "each"}
    return record | {"tied_channels": described_tie(NOT_LOOKED_FOR, channels), "settings": settings}


def _decomposed(img: Tensor, components: Mapping[str, Any]) -> Tensor:
    """The decomposed image: `img`, or the scan (high + low) if `img` is the network's input made from it."""
    high, low = (components[name].as_subclass(Tensor) for name in ("ifim_high", "ifim_low"))
    whole, shown = high + low, img.as_subclass(Tensor)
    same = shown.shape == whole.shape and torch.allclose(shown.to(whole), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))
    return shown if same else whole


def _file_of(img: MetaTensor) -> Path | None:
    name = img.meta.get("filename_or_obj")
    if isinstance(name, (list, tuple)):
        name = name[0] if name else None
    return Path(name) if isinstance(name, str) else None


def _source_of(file: Path | None) -> Source:
    if file is None:
        raise InputError("the image's metadata does not name its file: load it with MONAI's LoadImage, or pass source=.")
    return Source(file)


def _reading(img: MetaTensor, opened: OpenedSource) -> Reading:
    """What was decided in reading the input; whether it was inverted depends on the reader that the bundle names."""
    reading = opened.reading
    return reading if reading.inverted is None else replace(reading, inverted=bool(img.meta.get(INVERTED, reading.inverted)))


def _reader_of(img: MetaTensor) -> str | None:
    """MONAI reader that made the image, recognised by the metadata it leaves."""
    if is_photograph(img.meta):
        return "PILReader"
    if img.meta.get("spacing") is not None:
        return "ITKReader"
    return "NibabelReader" if "sform_code" in img.meta else None
