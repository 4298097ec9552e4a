"""The options of a decomposition and of the files of a case, each declared once: default, help, name on the command line.

`core.settings.Settings` and `adapt.settings.CaseSettings` have one field for each. Standard library only, so that `--help`
needs neither torch nor MONAI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Method = Literal["auto", "exact", "adaptive", "matrix_free"]
Precision = Literal["float32", "float64", "bfloat16", "float16"]
Space = Literal["native", "network", "scanner"]
Verify = Literal["sample", "always", "never"]
Statistics = Literal["differentiate", "freeze"]
Channels = Literal["tied", "each"]
CaseNames = Literal["path", "hash"]
PixelValuesBy = Literal["header", "rescale", "real-world"]
Monochrome1 = Literal["reader", "stored", "inverted"]
Decides = Literal["always", "approximate", "at least", "never"]
SAME = object()  # the command line's default is the field's
STATED = object()  # descriptions of every version state the field

HEADS = {  # name of each head that needs no parameters: its module and class in `monai_ifim.core.heads`
    "categorical": "categorical:CategoricalHead",
    "bernoulli": "bernoulli:BernoulliHead",
    "gaussian": "gaussian:GaussianHead",
    "probabilities": "probabilities:CategoricalProbabilityHead",
    "bernoulli_probabilities": "probabilities:BernoulliProbabilityHead",
    "volumes": "volumes:VolumesHead",
    "volumes_bernoulli": "volumes:IndependentVolumesHead",
    "voxelwise": "voxelwise:VoxelwiseHead",
    "voxelwise_bernoulli": "voxelwise:VoxelwiseBernoulliHead",
}
HEAD_NAMES = ("auto", *HEADS)
STEP_NATS = 0.1  # that the step costs which is stated for each coordinate
MODALITIES = ("any", "ct", "mr", "radiograph")  # of the coordinates "acquisition"
ENERGY, TOLERANCE = 0.99, 1e-4  # where they are not stated
VOXELWISE_RANK, VOXELWISE_TOLERANCE = 3, 0.05  # the same for a head with columns at every voxel, whose spectrum is flat
VOLUME_TOLERANCE = "5 %"
CONTENTS = ("high", "low", "sensitivity", "eigenvectors")


@dataclass(frozen=True)
class Option:
    """One option.

    default: of the field. help: one sentence for the command line. kind: type of its text there. flag: its name there, by
    default that of the field; of a truth value both names, "--on/--off", where it can be switched off. command_default: on
    the command line, where it differs. minimum: of a whole number.
    decides: when another value makes another result: "always"; "approximate": unless the method was exact; "at least": only
    where it is asked for and was not before; "never".
    absent: what the description of an earlier version means that does not state the field; without one, it describes no settings.
    """

    default: Any
    help: str
    kind: Any = str
    flag: str = ""
    command_default: Any = SAME
    minimum: int | None = None
    decides: Decides = "always"
    absent: Any = STATED


DECOMPOSITION: dict[str, Option] = {
    "head": Option("auto", f"What the network's outputs are: {', '.join(HEAD_NAMES)}."),
    "volume_tolerance": Option(
        VOLUME_TOLERANCE,
        "volumes, volumes_bernoulli: standard deviation of each label's volume: '5 %' of it, '0.5 ml' or '20 voxels'.",
        absent=VOLUME_TOLERANCE,
    ),
    "answer": Option(None, "Decompose the answer about one class or label alone: its name or number, from 0.", absent=None),
    "answer_mask": Option(
        None,
        "Segmentations: decompose the answer inside of a mask alone, a NIfTI file on the grid of the scan or of the network.",
        absent=None,
    ),
    "coordinates": Option(
        (),
        "Sensitivity to changes that have a name and a unit, separated by commas: placement, acquisition (of a stated modality: "
        "acquisition=ct, mr or radiograph).",
        command_default=None,
        absent=[],
    ),
    "output_key": Option(None, "Name, number or path (heads.diagnosis) of the logits, if the network returns several outputs."),
    "energy": Option(
        None,
        f"Keep the leading components that hold this share of the trace; by default {ENERGY} (voxelwise heads: see --rank).",
        float,
    ),
    "rank": Option(
        None,
        f"Keep this many components instead of a share; by default {VOXELWISE_RANK} of voxelwise heads, else --energy decides.",
        int,
    ),
    "method": Option("auto", f"{', '.join(get_args(Method)[1:])}, or auto."),
    "tolerance": Option(
        None,
        "adaptive, matrix_free: relative error of the kept eigenvalues; "
        f"by default {TOLERANCE:g}, of the voxelwise heads {VOXELWISE_TOLERANCE:g}.",
        float,
        decides="approximate",
    ),
    "probes": Option(
        8,
        "matrix_free: random columns that the sensitivity and the trace are estimated from, with their standard errors.",
        int,
        minimum=2,
        decides="approximate",
        absent=2,
    ),
    "memory_budget": Option(
        None, "Limit on rows and saved activations, such as 2GiB; the others are offloaded or recomputed.", decides="never"
    ),
    "metric": Option(
        None,
        "Noise level of the image, a number or a NIfTI map: eigenvalues per standard deviation of the noise.",
        flag="--noise",
    ),
    "precision": Option(None, f"Precision of the passes: {', '.join(get_args(Precision))}; by default the network's."),
    "seed": Option(0, "Seed of the random vectors of adaptive and matrix_free.", int, minimum=0, decides="approximate"),
    "locality": Option(
        False,
        "Compute the locality radius of each eigenvector; takes some more forward passes.",
        bool,
        "--locality/--no-locality",
        command_default=True,
        decides="at least",
    ),
    "verify": Option(
        "sample",
        "Compare derivatives with differences of the network's output: sample (the first image and every 20th), always, never.",
        decides="never",
    ),
}
SCAN: dict[str, Option] = {
    "statistics": Option("differentiate", "With --space scanner: differentiate or freeze percentiles and the like."),
    "resolution": Option(None, "With --space scanner: coarseness of changes in mm, 0 for none; by default the network's voxels."),
    "channels": Option(
        "tied",
        "tied: where the preprocessing makes several channels of one grey image, maps of that image; each: of each channel.",
    ),
    "deterministic": Option(
        False,
        "Use only operations that repeat to the last bit, on accelerators too.",
        bool,
        "--deterministic",
        decides="at least",
    ),
}
FILES: dict[str, Option] = {
    "space": Option(
        "native", "native: what the network saw, on the input's grid; network: on the network's grid; scanner: the scan itself."
    ),
    "contents": Option(
        CONTENTS, "Which components to write, separated by commas.", flag="--save", command_default=",".join(CONTENTS)
    ),
    "dicom_pm": Option(
        False, "Write the components as DICOM Parametric Maps too (DICOM inputs only).", bool, "--dicom-pm", decides="at least"
    ),
    "scene_bundle": Option(
        False, "Write each 3D Slicer scene as one .mrb file too, for sharing.", bool, "--mrb", decides="at least"
    ),
    "case_names": Option(
        "path",
        "path: cases are named after their files; hash: pseudonyms, whose key is beside OUT, and names of files in no result.",
        decides="never",
    ),
}
COORDINATE_FILES: dict[str, Option] = {  # of a family of coordinates
    "regions": Option(
        None, "With --space scanner: sensitivity to each region of a label map, a NIfTI file of whole numbers, 0 for no region."
    ),
}
READING: dict[str, Option] = {  # of a DICOM image
    "values": Option(
        "header",
        "Values of DICOM images whose headers state two: rescale, as other readers, or real-world; by default these are refused.",
        PixelValuesBy,
    ),
    "monochrome1": Option(
        "reader",
        "Radiographs stored with white as the smallest value: reader, as the bundle's MONAI reader; stored; or inverted.",
        Monochrome1,
    ),
}
LIMITS: dict[str, Option] = {  # of one case; 0 for none
    "max_voxels": Option(
        2**29,  # 512 x 512 x 2048, a whole body by CT; float32 copies of it take 2 GiB each
        "Refuse images of more voxels (times channels), as read or as prepared for the network; 0: no limit.",
        int,
        minimum=0,
        decides="never",
    ),
    "max_bytes": Option(
        2**32,  # max_voxels of 8 bytes each
        "Refuse images of more bytes, when unpacked; 0: no limit.",
        int,
        minimum=0,
        decides="never",
    ),
    "max_seconds": Option(
        21_600,  # 6 hours: a night has room for one such case and the others
        "Give a case up that takes longer to be read, or to be computed; 0: no limit.",
        int,
        minimum=0,
        decides="never",
    ),
}
TRANSFER: dict[str, Option] = {  # with a PACS
    "max_transfer_seconds": Option(
        21_600,
        "End if the server's answers take longer in all; 0: no limit.",
        int,
        minimum=0,
        decides="never",
    ),
}
OPTIONS: dict[str, Option] = {**DECOMPOSITION, **SCAN, **FILES}


_VALUE = r"'[^']*'|[\w%+-]+(?:\.[\w%]+)*"
_GIVEN = re.compile(rf"(?<!--set )(?<![\w.'-])({'|'.join(OPTIONS)})=((?:{_VALUE})(?:(?:, or |, | or | and )'[^']*')*)?")
_NAMED = re.compile(rf"(?<![\w.'-])({'|'.join(name for name in OPTIONS if '_' in name)})(?![\w='-])")
_PYTHON_ONLY = re.compile(r",? or (?:pass )?a Head\b")


def on_command_line(message: str) -> str:
    """A message that names options as Python's keywords, in the words of the command line.

    >>> on_command_line("pass head='probabilities', or rank= and memory_budget='2GiB'.")
    'pass --head probabilities, or --rank and --memory-budget 2GiB.'
    """
    message = _GIVEN.sub(_as_flag, _PYTHON_ONLY.sub("", message))
    return _NAMED.sub(lambda found: _flags_of(found[1])[0], message)


def _as_flag(found: re.Match[str]) -> str:
    on, *off = _flags_of(found[1])
    value = (found[2] or "").replace("'", "")
    if value == "True":
        return on
    if value == "False":
        return off[0] if off else f"no {on}"
    return f"{on} {value}".rstrip()


def _flags_of(name: str) -> list[str]:
    """Names of an option on the command line; of a truth value that can be switched off, both."""
    return (OPTIONS[name].flag or f"--{name.replace('_', '-')}").split("/")


def option(name: str) -> Any:
    """The dataclass field of an option, with its default; the option itself is in the field's metadata."""
    return field(default=OPTIONS[name].default, metadata={"option": OPTIONS[name]})
