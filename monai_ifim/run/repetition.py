"""Repeats a case from its sidecar: finds bundle and image, takes over the settings, and compares the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.mask_file import read_mask
from monai_ifim.adapt.region_file import read_regions
from monai_ifim.adapt.scanner.noise import read_noise
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.coordinates import Regions
from monai_ifim.coordinates.choice import families_of
from monai_ifim.core import IFIMError
from monai_ifim.io import InputError, OpenedSource, OutputError, Source, identify_bundle, read_sidecar, sidecar_path
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.installation import bundles_folder, resolve_bundle
from monai_ifim.io.limits import Limits
from monai_ifim.io.source import ValueChoice, there
from monai_ifim.run import cases
from monai_ifim.run.agreement import Quantity, RecordedCase, compare
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings, check_device

SUFFIX = "_ifim.json"
MOST_THREADS = 1024
DAMAGED = "its sidecar does not state how the case was made"
NOT_RECORDED = "not recorded"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Circumstance:
    """A condition that affects the numbers, as recorded and now. cause: how a difference is reported."""

    name: str
    recorded: str
    now: str
    cause: str

    @property
    def same(self) -> bool:
        """True if it is unchanged or was not recorded."""
        return self.recorded in (self.now, NOT_RECORDED)


@dataclass(frozen=True)
class Repetition:
    """A case, its repetition and how they compare."""

    case: str
    folder: Path
    circumstances: tuple[Circumstance, ...]
    quantities: tuple[Quantity, ...]

    @property
    def agrees(self) -> bool:
        """True if every result is within its tolerance."""
        return all(quantity.verdict != "differs" for quantity in self.quantities)

    @property
    def identical(self) -> bool:
        """True if every result is equal to the last bit."""
        return all(quantity.verdict == "same" for quantity in self.quantities)

    @property
    def causes(self) -> tuple[str, ...]:
        """Possible causes of a difference, the most likely first."""
        return tuple(dict.fromkeys(each.cause for each in self.circumstances if not each.same))


def read_recorded_case(path: Path) -> tuple[str, RecordedCase]:
    """Name and content of the case that a sidecar describes; raises InputError if the file is no sidecar, or one of an
    earlier version, which does not state all settings."""
    if not path.is_file() or not path.name.endswith(SUFFIX):
        raise InputError(f"{path.name}: give the sidecar of a case, CASE{SUFFIX}.")
    content = read_sidecar(path)
    if "settings" in content and content["settings"] is None:
        raise InputError(
            f"{path.name}: an earlier version made this case, and its sidecar does not state all settings: decompose the image "
            "again."
        )
    return path.name.removesuffix(SUFFIX), RecordedCase(path.parent, content)


def find_bundle(case: RecordedCase, given: str | None = None) -> Path:
    """The bundle that made a case: the one given, or that which comes with the package and has the recorded hashes.

    None is looked for elsewhere, because bundles are code. Raises InputError, with the cure.
    """
    if given is not None:
        return resolve_bundle(given)
    model = _section(case, "model")
    wanted = (model.get("weights_sha256"), model.get("config_sha256"))
    for root in sorted(path for path in bundles_folder().iterdir() if (path / "configs").is_dir()):
        identity = identify_bundle(root)
        if None not in wanted and (identity.weights_sha256, identity.config_sha256) == wanted:
            return root
    name = model.get("bundle") or "that was not recorded"
    raise InputError(f"the bundle {name} of this case does not come with the package: give its folder, --bundle DIR.")


def find_image(case: RecordedCase, given: Path | None = None) -> Source:
    """The input of a case: the file or DICOM folder given, or a folder that holds it; else what has the recorded name and
    content in the case's folder, OUT, the folder around it, the current one, or in a folder right in these two.

    Raises InputError, with the cure, where there is none.
    """
    recorded = _section(case, "input")
    name, digest = recorded.get("file"), recorded.get("sha256")
    if not isinstance(recorded.get("beside", {}), Mapping):
        raise InputError(f"{DAMAGED} ('beside' of its input is damaged).")
    if recorded.get("beside"):
        also = ", ".join(map(repr, recorded["beside"]))
        raise InputError(
            f"this case was made of {also} besides its image, and a sidecar does not say where these lie: decompose the "
            "datalist again, into another --output."
        )
    if not is_plain_name(name):
        raise InputError(f"{DAMAGED} (it names no input file).")
    if given is not None and not there(given):
        raise InputError(f"{given}: no such file or folder.")
    places = _near(case.folder, str(name)) if given is None else [given, given / str(name)]
    found = [_source(path, recorded) for path in places if there(path)]
    for source in found:
        if digest is not None and _hash(source) == digest:
            return source
    if given is not None:
        return found[-1]  # with another content, which the comparison names as a cause
    if found:
        raise InputError(
            f"{name}: the file of this name at {found[0].path} is not the one that was decomposed, by its hash: give that one, "
            "--image PATH."
        )
    raise InputError(f"{name}: the image of this case was not found near its files: give its path, --image PATH.")


def was_deterministic(case: RecordedCase) -> bool:
    """True if the case was made with deterministic algorithms only; its repetition uses them too."""
    return bool(_computation(case.sidecar).get("deterministic"))


def repeat_case(
    name: str,
    case: RecordedCase,
    root: Path,
    source: Source,
    output: Path,
    device: str | None = None,
    noise: str | None = None,
    limits: Limits | None = None,
    mask: str | None = None,
    regions: str | None = None,
) -> Repetition:
    """Decompose the image again into OUTPUT/CASE and compare. device: another than the recorded one; noise, mask, regions: the
    maps; limits: on the case, by default those of `Limits`.

    Raises IFIMError where that cannot be done or there is nothing to compare.
    """
    if output.resolve() == case.folder.parent.resolve():
        raise OutputError(f"{output}: holds the case to compare with: choose another --output.")
    maps = _checked(lambda: _maps(case.sidecar["settings"], noise, mask, regions), name)
    settings = _checked(lambda: replace(_settings(case.sidecar, output, device, maps), limits=limits or Limits()), name)
    bundle = load_bundle(root, settings.device)
    with _threads(case.sidecar, settings.device):
        [row] = run_cases(bundle, [cases.Case(name, source)], settings, lambda row: None)
    if row.status == "failed":
        raise IFIMError(f"{name} cannot be repeated: {row.reason}")
    again = RecordedCase(output / row.case, read_sidecar(sidecar_path(output, row.case)))
    quantities = _checked(lambda: compare(case, again), name)
    return Repetition(name, case.folder, tuple(_circumstances(case.sidecar, again.sidecar)), tuple(quantities))


def _settings(sidecar: Mapping[str, Any], output: Path, device: str | None, maps: Mapping[str, Any]) -> RunSettings:
    """The settings that the sidecar states, without the files that the comparison does not read; maps: as `_maps`."""
    described = dict(sidecar["settings"]) | {"dicom_pm": False, "scene_bundle": False}
    if described["head"] == "auto":  # what the bundle asks for now may be another than was taken then
        described["head"] = sidecar["model"]["head"]
    case = CaseSettings.from_description(described, **maps)
    used = _device(sidecar["device"]) if device is None else device
    return RunSettings(output, case, device=used, overwrite=True)


def _maps(described: Mapping[str, Any], noise: str | None, mask: str | None, regions: str | None) -> dict[str, Any]:
    """What a case was made with that its settings do not hold: noise map, mask and label map, read from where `noise`, `mask` and
    `regions` say, and the families of coordinates; nothing where there were none."""
    maps: dict[str, Any] = {}
    if (described["metric"] or {}).get("sigma") == "map":
        if noise is None:
            raise InputError("this case was made with a noise map: give its path, --noise FILE.")
        maps["metric"] = read_noise(noise)
    if described.get("answer_mask") is not None:
        if mask is None:
            raise InputError("this case was made with a mask of the answer: give its path, --answer-mask FILE.")
        maps["answer_mask"] = read_mask(mask)
    families = described.get("coordinates") or []
    if any(each.get("kind") == Regions.kind for each in families) and regions is None:
        raise InputError("this case was made with a label map of regions: give its path, --regions FILE.")
    if families:
        maps["coordinates"] = families_of(families, *read_regions(regions))
    return maps


def _device(recorded: str) -> str:
    """The recorded device, or the CPU if this machine has no such device."""
    try:
        check_device(recorded)
    except IFIMError:
        return "cpu"
    return recorded


@contextmanager
def _threads(sidecar: Mapping[str, Any], device: str) -> Iterator[None]:
    """Use the recorded number of threads on the CPU: another number changes the order of sums, hence rounding."""
    wanted, before = _computation(sidecar).get("threads"), torch.get_num_threads()
    if device == "cpu" and isinstance(wanted, int) and 0 < wanted <= MOST_THREADS:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _circumstances(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Circumstance]:
    """Conditions that affect the numbers, those with the largest effect first."""
    then, again = recorded["model"], now["model"]
    yield _compared("weights", then.get("weights_sha256"), again["weights_sha256"], "other weights")
    yield _compared("inference config", then.get("config_sha256"), again["config_sha256"], "another inference config")
    yield _compared("bundle version", then.get("version"), again["version"], "another version of the bundle")
    if all(then.get(name) == again[name] for name in ("weights_sha256", "config_sha256")):
        yield _compared("bundle", then.get("bundle_sha256"), again["bundle_sha256"], "another script or file of the bundle")
    yield _compared("image", recorded["input"].get("sha256"), now["input"]["sha256"], "another image")
    yield _compared("metric", recorded.get("metric"), now["metric"], "another noise map or low-pass filter")
    versions = recorded.get("versions") or {}
    for package, version in now["versions"].items():
        yield _compared(package, versions.get(package), version, f"another version of {package}")
    then, again = _computation(recorded), _computation(now)
    yield _compared("device", recorded.get("device"), now["device"], "another device")
    yield _compared("processor", then.get("processor"), again["processor"], "another processor")
    if now["device"] == "cpu":
        yield _compared("threads", then.get("threads"), again["threads"], "another number of threads")
    yield _compared("images that shared passes", then.get("batch"), again["batch"], "the case shared its passes with others")


def _compared(name: str, recorded: Any, now: Any, cause: str) -> Circumstance:
    then, again = (NOT_RECORDED if value is None else str(value) for value in (recorded, now))
    if name == "device":  # older sidecars say which of a machine's
        then = then.partition(":")[0]
    return Circumstance(name, then, again, cause)


def _computation(sidecar: Mapping[str, Any]) -> Mapping[str, Any]:
    found = sidecar.get("computation")
    return found if isinstance(found, Mapping) else {}


def _section(case: RecordedCase, name: str) -> Mapping[str, Any]:
    found = case.sidecar.get(name)
    if not isinstance(found, Mapping):
        raise InputError(f"{DAMAGED} ('{name}' is missing).")
    return found


def _checked(task: Callable[[], Found], name: str) -> Found:
    """Result of `task`; raises InputError if the sidecar is damaged."""
    try:
        return task()
    except IFIMError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name}: {DAMAGED} ({said}): decompose the image again.") from error


def _source(path: Path, recorded: Mapping[str, Any]) -> Source:
    choice = ValueChoice(**recorded.get("choice", {}))
    return Source(path, recorded.get("frame"), recorded.get("series"), bool(recorded.get("resampled")), choice=choice)


def _hash(source: Source) -> str | None:
    """Content hash; None if the source cannot be read as the one that was decomposed."""
    try:
        return OpenedSource(source).digest
    except (IFIMError, OSError):
        return None


def _near(folder: Path, name: str) -> Iterator[Path]:
    """Files, and folders with DICOM files, that may be the input of the case in `folder`."""
    case = folder.resolve()
    around = list(dict.fromkeys([case.parent.parent, Path.cwd()]))
    for place in dict.fromkeys([case, case.parent, *around, *chain.from_iterable(map(_folders, around))]):
        try:
            if (place / name).is_file() or dicom_files(place / name):
                yield place / name
        except OSError:  # no permission
            continue


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []
