"""Resume: which cases an earlier run left whole. Told by content, never by time stamps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.core import Metric
from monai_ifim.core.assembly import head_name, selection
from monai_ifim.io import ModelIdentity, OpenedSource, read_sidecar, sidecar_path
from monai_ifim.io.containment import is_plain_name
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow, row_from_sidecar


def kept_row(identity: ModelIdentity, case: Case, settings: RunSettings, opened: OpenedSource | None = None) -> CaseRow | None:
    """The row of a case that an earlier run finished; None where there is none, or where its sidecar is damaged or tells
    of another input, another model or other settings: what lies there then is not what was asked for."""
    if settings.overwrite:
        return None
    sidecar = sidecar_path(settings.output, case.name)
    try:
        content = read_sidecar(sidecar) if sidecar.is_file() else None
        if content is None or not _answers(content, identity, case, settings, opened or OpenedSource(case.source)):
            return None
        return row_from_sidecar(case.name, "kept", content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):  # in as many ways as it is damaged
        return None


def _answers(
    content: Mapping[str, Any], identity: ModelIdentity, case: Case, settings: RunSettings, opened: OpenedSource
) -> bool:
    """Whether a sidecar is that of this input, this model and these settings, with all of its files."""
    model = content["model"]
    folder = settings.output / case.name
    return (
        content["input"]["frame"] == case.source.frame
        and content["input"]["series"] == case.source.series
        and content["input"]["resampled"] == opened.resampled
        and model["weights_sha256"] == identity.weights_sha256
        and model["config_sha256"] == identity.config_sha256
        and model["version"] == identity.version
        and _settings_agree(content, settings)
        and all(is_plain_name(name) and (folder / name).is_file() for name in _files(content, case, settings))
        and content["input"]["sha256"] == opened.digest  # last: it reads all of the input
    )


def _files(content: Mapping[str, Any], case: Case, settings: RunSettings) -> list[str]:
    """Names of all that must lie beside the sidecar."""
    bundle = [f"{case.name}.mrb"] if settings.scene_bundle else []
    return [
        *(file["file"] for file in content["files"]),
        *content["parametric_maps"],
        content["scene"],
        content["planes"],
        *bundle,
    ]


def _metric_agrees(content: Mapping[str, Any], settings: RunSettings) -> bool:
    """A resolution is a metric whose widths depend on the scan: there the setting is compared."""
    metric = settings.options.metric
    if settings.space == "scanner":
        asked = {"statistics": settings.statistics, "resolution": settings.resolution}
        if any(content["preprocessing"][name] != value for name, value in asked.items()):
            return False
        if settings.resolution is not None:
            return True
    return bool(content["metric"] == (metric.describe() if isinstance(metric, Metric) else None))


def _settings_agree(content: Mapping[str, Any], settings: RunSettings) -> bool:
    options = settings.options
    saved = {file["kind"] for file in content["files"]} - {"source"}
    wanted = {"input", *(name.removesuffix("s") for name in settings.contents)}
    return (
        content["space"]["name"] == settings.space
        and content["selection"] == selection(options.energy, options.rank)
        and content["method_requested"] == options.method
        and (content["tolerance"] == options.tolerance or content["method"] == "exact")
        and _metric_agrees(content, settings)
        and content["precision"] == options.precision
        and content["seed"] in (None, options.seed)
        and content["head_requested"] == head_name(options.head)
        and (content["locality_radius"] is not None or not options.locality)
        and (content["rank"] == 0 or saved == wanted)
        and (bool(content["parametric_maps"]) or not settings.dicom_pm)
        and (not settings.deterministic or bool(content["computation"]["deterministic"]))
    )
