"""Resume: finds the cases that an earlier run finished, by their content and never by time stamps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.io import ModelIdentity, OpenedSource, read_sidecar, sidecar_path
from monai_ifim.io.case_folder import is_input_of
from monai_ifim.io.containment import is_plain_name
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow, row_from_sidecar

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # what reading a damaged sidecar raises


def kept_row(identity: ModelIdentity, case: Case, settings: RunSettings, opened: OpenedSource | None = None) -> CaseRow | None:
    """The row of a case that an earlier run finished; None where there is none, or a link in its place. opened: its source.

    A sidecar that is damaged, or that states another input, model or settings, counts as none: the case is made again.
    """
    sidecar = sidecar_path(settings.output, case.name)
    if settings.overwrite or sidecar.parent.is_symlink():
        return None
    try:
        content = read_sidecar(sidecar) if sidecar.is_file() else None
        if content is None or not _matches(content, identity, case, settings, opened or OpenedSource(case.source)):
            return None
        return row_from_sidecar(case.name, "kept", content)
    except DAMAGE:
        return None


def _matches(
    content: Mapping[str, Any], identity: ModelIdentity, case: Case, settings: RunSettings, opened: OpenedSource
) -> bool:
    """True if a sidecar states this input, this model and these settings, and all of its files are there."""
    model = content["model"]
    folder = settings.output / case.name
    return (
        model["weights_sha256"] == identity.weights_sha256
        and model["config_sha256"] == identity.config_sha256
        and model["version"] == identity.version
        and model["class_names"] == list(identity.class_names)
        and settings.case.gives_same_result(content["settings"], exact=content["method"] == "exact")
        and all(is_plain_name(name) and (folder / name).is_file() for name in _files(content, case, settings))
        and is_input_of(content["input"], opened)  # last: it reads all of the input
    )


def _files(content: Mapping[str, Any], case: Case, settings: RunSettings) -> list[str]:
    """Names of the files that must lie beside the sidecar."""
    bundle = [f"{case.name}.mrb"] if settings.case.scene_bundle else []
    return [
        *(file["file"] for file in content["files"]),
        *content["parametric_maps"],
        content["scene"],
        content["planes"],
        *bundle,
    ]
