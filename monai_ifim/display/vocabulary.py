"""The words of console, pages, figures, viewer and scenes: a label for each thing, its meaning, its names in papers and files.

A label stands where there is little room; `tip` is what a pointer on it, or a reader of the glossary, gets. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from monai_ifim.display.term import Term, titled

__all__ = [
    "ANSWER",
    "BY_COMPONENT",
    "CASE",
    "CHANGE_OF_VOLUME",
    "CHANNELS",
    "COMPONENT",
    "COMPONENTS_KEPT",
    "CONFIDENCE",
    "CONVERGENCE",
    "DECOMPOSED",
    "DERIVATIVES",
    "ERROR_BOUND",
    "EXPECTED_VOLUME",
    "GLOSSARY",
    "GRID",
    "HEAD",
    "HIGH",
    "HOLDS_UP_TO",
    "INPUT",
    "LABEL",
    "LEADING",
    "LOW",
    "MAPS",
    "METHOD",
    "NAT",
    "ONE_NAT",
    "OVERLAY",
    "PER_UNIT",
    "PROBABILITY",
    "PRODUCTS",
    "READING",
    "RESIDUAL",
    "SATURATED",
    "SECONDS",
    "SENSITIVITY_ALONG",
    "SENSITIVITY_KEPT",
    "SENSITIVITY_MAP",
    "SHARE",
    "SIZE",
    "SIZE_HIGH",
    "SIZE_LOW",
    "STANDS_OUT",
    "STATUS",
    "TOLERANCE",
    "TOTAL_SENSITIVITY",
    "UNIT",
    "WEIGHTS",
    "Term",
    "map_name",
    "term_of",
    "titled",
]

PER_UNIT = "nats per unit²"  # of eigenvalues, their sum, and the map of sensitivity


CASE = Term("case", "One image and all that was made from it, in one folder.", fields=("case",))
STATUS = Term(
    "status",
    "Done; kept, which is whole from an earlier run of the same input, bundle and settings; or failed, with the reason.",
    fields=("status", "reason"),
)
INPUT = Term(
    "input file",
    "The file or folder that the image was read from, the volume of it where it holds several, and its SHA-256.",
    fields=("input", "path", "frame", "input_sha256"),
)
READING = Term("reading", "What was guessed or assumed in reading the input, in sentences.", fields=("warnings",))
CHANNELS = Term(
    "channels",
    "Whether one grey image fills all channels that the network takes (tied), or each channel has maps of its own (each).",
    fields=("channels",),
)
WEIGHTS = Term("weights", "What the network learned, told apart by the SHA-256 of its file.", fields=("weights_sha256",))
DECOMPOSED = Term(
    "part of the answer",
    "Which part of the answer all numbers and maps are about, where it is not all of it: some classes, or labels.",
    fields=("decomposed",),
)
ANSWER = Term(
    "answer",
    "What the network says of the image: the class that it finds likeliest, and of a segmentation or a regression the volumes or "
    "values that it predicts. It is the network's answer, not a diagnosis.",
    fields=("prediction",),
)
LABEL = Term(
    "label",
    "A name that the network may give to an image or to a voxel. Independent labels each have a probability of their own: "
    "several of them may hold, or none.",
    fields=("class_names",),
)
PROBABILITY = Term(
    "probability",
    "How likely the network finds its answer, from 0 to 1. Networks are often too sure: it is not the chance that the answer is "
    "right.",
    fields=("probability", "probabilities"),
)
CONFIDENCE = Term(
    "confidence",
    "How sure the network is of its answer: the probability of the class named. Of independent labels, and of networks with one "
    "output, the larger of p and 1 \N{MINUS SIGN} p, as a certain no is certain too.",
)
COMPONENT = Term(
    "component",
    "A pattern that can be added to the image, or taken away. Of all patterns of the same size, component 1 moves the answer "
    "most, component 2 most of those that are left, and so on. Adding it makes the answer more probable.",
    "eigenvector of F, the Fisher information matrix of the network at this image: KL(p(x) || p(x + d)) = dᵀF d / 2 for small d",
    ("eigenvector",),
)
COMPONENTS_KEPT = Term(
    "components kept",
    "How many components were kept: as few as hold the share of the sensitivity that was asked for, or the number that was asked "
    "for.",
    "rank",
    ("rank",),
)
SENSITIVITY_ALONG = Term(
    "sensitivity of a component",
    "How strongly small changes along a component move the answer: a step of length e moves it by e² times half of this number, "
    "in nats.",
    "eigenvalue of F",
)
BY_COMPONENT = Term(
    "sensitivity by component",
    "The sensitivity of each kept component, the strongest first. Where the first ones hold most of it, few directions matter.",
    "spectrum of F",
    ("eigenvalues",),
)
LEADING = Term(
    "strongest component",
    "How strongly small changes along component 1 move the answer: a step of length e moves it by e² times half of this number, "
    "in nats. No other direction moves it more.",
    "leading eigenvalue of F",
    ("eigenvalue",),
)
TOTAL_SENSITIVITY = Term(
    "total sensitivity",
    "How strongly small changes of the image move the answer, summed over all directions; also the sum of the sensitivity map. "
    "It can be compared between images of one network, one grid and one scale of intensities only.",
    "trace of F",
    ("trace", "trace_error"),
)
SENSITIVITY_KEPT = Term(
    "sensitivity kept",
    "The share of the total sensitivity that the kept components hold together. It says nothing about the share of the image.",
    "share of the trace of F, energy",
    ("energy_kept",),
)
SHARE = Term("share of the total", "The part of the total sensitivity that one component holds.", "eigenvalue over trace")
SENSITIVITY_MAP = Term(
    "sensitivity",
    "A map: bright where a small change of that voxel alone moves the answer much. It is a property of the network at this "
    "image: bright does not mean that something is there, nor dark that nothing is.",
    "diagonal of F",
    ("sensitivity", "norm_sensitivity"),
)
HIGH = Term(
    "sensitive part (high)",
    "The part of the image along the kept components, where small changes move the answer most. The sensitive and the "
    "insensitive part add up to the image.",
    "x_high, projection onto the leading eigenspace",
    ("high",),
)
LOW = Term(
    "insensitive part (low)",
    "The image without its sensitive part. Very small changes of it hardly move the answer; large ones can.",
    "x_low",
    ("low",),
)
OVERLAY = Term(
    "overlay",
    "A map in colour over the image that it belongs to. How strong it is drawn is for the eye alone: no number depends on it.",
)
SIZE = Term(
    "size of the image",
    "The square root of the sum of its squared values, over all voxels and channels on the grid of the decomposition.",
    "|x|, the L2 norm",
    ("norm_input", "norms_grid"),
)
SIZE_HIGH = Term(
    "size of the sensitive part",
    "As the size of the image. Of the two parts the squares of the sizes add up to that of the image.",
    "|x_high|",
    ("norm_high",),
)
SIZE_LOW = Term("size of the insensitive part", "As the size of the image.", "|x_low|", ("norm_low",))
HOLDS_UP_TO = Term(
    "holds up to",
    "The longest step along a component that its number describes within 10 %. As a share of the size of the image, |x|, and as "
    "the root mean square change of its values. Beyond it nothing is said. At least: few passes were made, it may be longer.",
    "locality radius",
    ("locality_radius", "locality_share", "locality_rms", "locality_is_lower_bound"),
)
ONE_NAT = "1 nat takes a class that is as likely as not, 0.50, to 0.96"
NAT = Term(
    "nat",
    f"How far an answer moves, as information is measured. {ONE_NAT}; 0.02 nats take it to 0.60. 1 nat is 1.44 bits.",
    "Kullback-Leibler divergence, with the natural logarithm",
)
UNIT = Term(
    "unit",
    "One step of the values of the image that was decomposed: as the network gets it, after the preprocessing, or of the scan "
    "itself, such as a Hounsfield unit, if scanner space was asked for. The length of a change is counted over all voxels.",
    "L2 norm",
    ("unit",),
)
GRID = Term(
    "grid of the files",
    "Whose voxels the maps have: those of the network's input (network), or those of the scan as it was read (native, scanner).",
    fields=("space",),
)
EXPECTED_VOLUME = Term(
    "expected volume",
    "Of a segmentation: the sum of a label's probability over all voxels, times the volume of a voxel.",
    fields=("means", "means_unit", "volume_labels", "volumes"),
)
CHANGE_OF_VOLUME = Term(
    "change of a volume",
    "By how much a change of the image, one unit long, changes the expected volume of a label: at most, and along component 1.",
    "derivative of the volume",
    ("volume_slopes", "volume_changes", "volume_sentence"),
)
TOLERANCE = Term(
    "tolerance",
    "How large a difference of a volume counts as one: a change of the image that moves a volume by its tolerance costs half a "
    "nat.",
    "standard deviation of a Gaussian",
    ("volume_tolerances",),
)
HEAD = Term(
    "head",
    "How the network's output is read: one class of several (categorical), independent labels (bernoulli), values (gaussian), "
    "volumes of labels (volumes), or a class at every voxel (voxelwise).",
    "likelihood",
    ("head",),
)
PRODUCTS = Term(
    "products",
    "How often the network was run backwards, which is what a decomposition costs.",
    "vector-Jacobian products",
    ("jacobian_products",),
)
METHOD = Term(
    "method",
    "How the components were computed: all of them (exact), as many as were asked for (adaptive), or step by step without all of "
    "the derivatives (matrix-free).",
    fields=("method",),
)
ERROR_BOUND = Term(
    "error bound",
    "How much of the total sensitivity the method may have missed, at most. 0 for the exact method.",
    fields=("error_bound",),
)
RESIDUAL = Term(
    "largest residual",
    "How far the least exact component is from a true one, as a share of its number. 0 for the exact method.",
    "|F u \N{MINUS SIGN} l u| / l",
    ("residual", "residuals"),
)
CONVERGENCE = Term(
    "iteration",
    "Converged: all components are as exact as was asked for. Not converged: time or steps ran out, and the components are the "
    "best so far.",
    fields=("convergence", "stopped"),
)
DERIVATIVES = Term(
    "derivatives",
    "A check: the network is run on slightly changed images, and how its output differs is compared with what its derivatives "
    "say.",
    "central differences",
    ("verification", "deviation", "verified_by"),
)
SECONDS = Term(
    "time",
    "Reading, computing and writing of a case. For a case kept from an earlier run, its computation alone.",
    fields=("seconds",),
)
SATURATED = Term(
    "saturated",
    "Nothing here moves the answer: by the sensitivity along component 1, even a change as large as the whole contrast of the "
    "image would cost less than a millionth of a nat. The maps are drawn in grey, as their spots are no findings.",
    "lambda_1 c² / 2 below 0.000001, with c the L2 norm of the image less its mean",
    ("saturation", "saturated"),
)
STANDS_OUT = Term(
    "stands out",
    "A case that lies far from the others of the run, by a rule that the page states. It is a case to look at, not an error.",
    "outlier by the robust z-score",
)

MAPS: Mapping[str, str] = MappingProxyType(
    {
        "source": "image",
        "input": "image as the network saw it",
        "labels": "segmentation",
        "high": HIGH.label,
        "low": LOW.label,
        "sensitivity": SENSITIVITY_MAP.label,
        "sensitivity_error": f"{SENSITIVITY_MAP.label}, standard error",
        "eigenvector": COMPONENT.label,
    }
)  # what each kind of map, of `io.maps.KINDS`, is called

GLOSSARY = (
    CASE,
    STATUS,
    INPUT,
    ANSWER,
    LABEL,
    PROBABILITY,
    CONFIDENCE,
    DECOMPOSED,
    COMPONENT,
    COMPONENTS_KEPT,
    SENSITIVITY_MAP,
    TOTAL_SENSITIVITY,
    SENSITIVITY_ALONG,
    BY_COMPONENT,
    LEADING,
    SENSITIVITY_KEPT,
    SHARE,
    HIGH,
    LOW,
    OVERLAY,
    SIZE,
    SIZE_HIGH,
    SIZE_LOW,
    HOLDS_UP_TO,
    NAT,
    UNIT,
    GRID,
    CHANNELS,
    EXPECTED_VOLUME,
    TOLERANCE,
    CHANGE_OF_VOLUME,
    STANDS_OUT,
    SATURATED,
    CONVERGENCE,
    RESIDUAL,
    ERROR_BOUND,
    DERIVATIVES,
    METHOD,
    PRODUCTS,
    HEAD,
    READING,
    WEIGHTS,
    SECONDS,
)


def map_name(kind: str, component: int | None = None) -> str:
    """What a map is called: its kind's entry in MAPS, or the kind itself, which a foreign file may state, and the number of the
    component."""
    name = MAPS.get(kind, kind)
    return name if component is None else f"{name} {component}"


def term_of(field: str) -> Term:
    """The term of a column of cases.csv and cases.parquet, or of a key of a sidecar. Raises KeyError for one without."""
    return _BY_FIELD[field]


_BY_FIELD = {field: term for term in GLOSSARY for field in term.fields}
