"""Resume: finds the cases that an earlier run finished, by their content and never by time stamps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from monai_ifim.io import ModelIdentity, OpenedSource
from monai_ifim.io.case_folder import is_input_of
from monai_ifim.io.errors import single_line
from monai_ifim.io.seal import is_unaltered
from monai_ifim.io.sidecar import SEAL, parse_sidecar
from monai_ifim.io.written_files import CaseFolder
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow, row_from_sidecar

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # what reading a damaged sidecar raises
UNPROVEN = (
    "cases of an earlier version of monai_ifim are made again: their sidecars do not state what would prove them whole, the "
    "SHA-256 of each file and of the bundle. Choose another --output to keep them."
)


class OlderCaseWarning(UserWarning):
    """Cases of an earlier version are made again."""


def kept_row(identity: ModelIdentity, case: Case, settings: RunSettings, opened: OpenedSource | None = None) -> CaseRow | None:
    """The row of a case that an earlier run finished; None where there is none, or a link in its place. opened: its source.

    A case counts as finished if its input, bundle, settings and files are what its sidecar says. All else is made again, and why
    is logged; of a case of an earlier version an OlderCaseWarning tells it.
    """
    if settings.overwrite:
        return None
    try:
        with CaseFolder.opened(settings.output, case.name) as folder:
            text = folder.sidecar()
            content = parse_sidecar(f"{case.name}_ifim.json", text)
            if "written" not in content:
                warnings.warn(UNPROVEN, OlderCaseWarning, stacklevel=2)
                return None
            why = "its sidecar was altered" if not is_unaltered(text, SEAL) else None
            source = opened or OpenedSource(case.source)
            why = why or next(_differences(content, identity, case, settings, source, folder), None)
        if why is None:
            return row_from_sidecar(case.name, "kept", content)
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        why = single_line(str(error))
    logging.getLogger("monai_ifim").info("case %s is made again: %s", case.name, why)
    return None


def _differences(
    content: Mapping[str, Any],
    identity: ModelIdentity,
    case: Case,
    settings: RunSettings,
    opened: OpenedSource,
    folder: CaseFolder,
) -> Iterator[str]:
    """What is another thing than the sidecar states, what is found out fast first."""
    source, model = content["input"], content["model"]
    for name in ("weights_sha256", "config_sha256", "bundle_sha256", "version"):
        if model[name] != getattr(identity, name):
            yield f"another bundle ({name})"
    if model["class_names"] != list(identity.class_names):
        yield "other class names"
    if not settings.case.gives_same_result(_made_with(content, settings), exact=content["method"] == "exact"):
        yield "other settings"
    if content.get("stopped") == "request":
        yield "its iteration was ended by the limit of time"
    written, names = content["written"], folder.names()
    absent = [name for name in _needed(content, case, settings) if name not in written]
    yield from (f"{name} is not among the files that its sidecar states" for name in absent)
    yield from (f"{each.name} is {each.fault}" for each in folder.faults(written, names))
    if not is_input_of(source, opened):
        yield "another input"  # last: it reads all of it


def _made_with(content: Mapping[str, Any], settings: RunSettings) -> Mapping[str, Any]:
    """The settings of a finished case; for a head that was left open, the one that was taken, where one is asked for now."""
    made: Mapping[str, Any] = content["settings"]
    if made["head"] != "auto" or settings.case.head == "auto":
        return made
    return {**made, "head": content["model"]["head"]}


def _needed(content: Mapping[str, Any], case: Case, settings: RunSettings) -> list[str]:
    """Names of the files that the case must have."""
    bundle = [f"{case.name}.mrb"] if settings.case.scene_bundle else []
    maps = [file["file"] for file in content["files"]]
    return [*maps, *content["parametric_maps"], content["scene"], content["planes"], *bundle]
