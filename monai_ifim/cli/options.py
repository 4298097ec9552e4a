"""Options that several verbs share, each declared once: those of the settings, made from `monai_ifim.options`, and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from monai_ifim.options import COORDINATE_FILES, LIMITS, OPTIONS, READING, SAME, TRANSFER, Option

if TYPE_CHECKING:
    from monai_ifim.adapt.settings import CaseSettings
    from monai_ifim.core.coordinates import Family
    from monai_ifim.io.limits import Limits

BATCH_SIZE = typer.Option(help="Images of one shape that share backward passes.")
BUNDLE = typer.Option(help="MONAI bundle: its folder, or the name of one that comes with the package.")
DEVICE = typer.Option(help="cpu, cuda, cuda:1, mps; by default CUDA where there is one.")
EXPECT_SHA256 = typer.Option(
    "--expect-sha256", metavar="HASH", help="Refuse a bundle unless its weights, or the whole bundle, have this SHA-256."
)
FIX_GEOMETRY = typer.Option(
    "--fix-geometry", help="Resample DICOM volumes with a tilted gantry or uneven gaps onto an even grid."
)
JSON = typer.Option("--json", help="Print one JSON object on standard output, and everything else on standard error.")
MAX_TRANSFER_SECONDS = typer.Option(help=TRANSFER["max_transfer_seconds"].help, min=0)
MONOCHROME1 = typer.Option("--monochrome1", help=READING["monochrome1"].help)
OUTPUT = typer.Option("--output", "-o", help="Folder for the results.")
PRIVATE = typer.Option("--private", help="Make the folder for results readable by its owner only.")
PRIVATE_OR_NOT = typer.Option("--private/--no-private", help="Make the folder for results readable by its owner only.")
OVERWRITE = typer.Option("--overwrite", help="Make finished cases again.")
QUIET = typer.Option("--quiet", "-q", help="Print nothing but errors and cases that failed, on standard error.")
VALUES = typer.Option("--values", help=READING["values"].help)


@dataclass(frozen=True)
class GivenSettings:
    """The options of the settings as the command line gave them, by the names of the fields."""

    values: Mapping[str, Any]

    @property
    def limits(self) -> Limits:
        """The limits on a case; raises InputError for an invalid one."""
        from monai_ifim.io.limits import Limits

        return Limits(**{name.removeprefix("max_"): self.values[name] for name in LIMITS})

    @property
    def mask(self) -> str | None:
        """The path of the mask of the answer."""
        mask: str | None = self.values["answer_mask"]
        return mask

    @property
    def regions(self) -> str | None:
        """The path of the label map of regions."""
        regions: str | None = self.values.get("regions")
        return regions

    @property
    def noise(self) -> str | None:
        """The noise level as given, a number or the path of a map."""
        noise: str | None = self.values["metric"]
        return noise

    def settings(self, **decided: Any) -> CaseSettings:
        """The settings; decided: fields that the verb decides itself. Raises IFIMError for invalid settings."""
        from monai_ifim.adapt.mask_file import read_mask
        from monai_ifim.adapt.scanner.noise import read_noise
        from monai_ifim.adapt.settings import CaseSettings

        given = {name: value for name, value in self.values.items() if name in OPTIONS} | decided
        if given.get("space") == "scanner" and given["resolution"] is None and given["metric"] is None:
            given["resolution"] = "network"  # the network cannot tell finer changes apart
        given["metric"] = read_noise(given.get("metric"))
        given["answer_mask"] = read_mask(given.get("answer_mask"))
        given["coordinates"] = self._families()
        return CaseSettings(**given)

    def _families(self) -> tuple[Family, ...]:
        """The families of coordinates that are named, and the regions."""
        names, regions = self.values.get("coordinates"), self.values.get("regions")
        if not names and regions is None:
            return ()
        from monai_ifim.adapt.region_file import read_regions
        from monai_ifim.coordinates.choice import named_families

        return (*named_families(names), *read_regions(regions))


def takes_settings(*names: str, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb one command-line option for each setting; the verb gets them all in its parameter `given`.

    names: fields of `CaseSettings`, by default all of them but those in `without`, and the limits.
    """
    offered = OPTIONS if names else OPTIONS | COORDINATE_FILES | LIMITS
    chosen = {name: one for name, one in offered.items() if (not names or name in names) and name not in without}

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, include_extras=True)
        parameters: list[Parameter] = []
        for name, own in signature(verb).parameters.items():
            if name == "given":
                parameters.extend(_parameter(each, one) for each, one in chosen.items())
            else:
                parameters.append(own.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

        @wraps(verb)
        def run(**values: Any) -> None:
            given = GivenSettings({name: values.pop(name) for name in chosen})
            verb(**values, given=given)

        run.__signature__ = signature(verb).replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameter(name: str, one: Option) -> Parameter:
    default = one.default if one.command_default is SAME else one.command_default
    kind: Any = one.kind | None if default is None else one.kind
    flags = (one.flag,) if one.flag else ()
    declared = Annotated[kind, typer.Option(*flags, help=one.help, min=one.minimum)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=declared)
