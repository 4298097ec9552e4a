"""The words of console, pages, figures, viewer and scenes: a label for each thing, its meaning, its names in papers and files.

A label stands where there is little room; `tip` is what a pointer on it, or a reader of the glossary, gets. Standard library
only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ANSWER",
    "CASE",
    "COMPONENT",
    "COMPONENTS_KEPT",
    "CONFIDENCE",
    "CONVERGENCE",
    "DERIVATIVES",
    "ERROR_BOUND",
    "EXPECTED_VOLUME",
    "GLOSSARY",
    "GRID",
    "HEAD",
    "HIGH",
    "HOLDS_UP_TO",
    "LABEL",
    "LEADING",
    "LOW",
    "NAT",
    "ONE_NAT",
    "OVERLAY",
    "PER_UNIT",
    "PROBABILITY",
    "PRODUCTS",
    "RESIDUAL",
    "SATURATED",
    "SECONDS",
    "SENSITIVITY_ALONG",
    "SENSITIVITY_KEPT",
    "SENSITIVITY_MAP",
    "SHARE",
    "STANDS_OUT",
    "TOLERANCE",
    "TOTAL_SENSITIVITY",
    "UNIT",
    "Term",
    "titled",
]

PER_UNIT = "nats per unit²"  # of eigenvalues, their sum, and the map of sensitivity


@dataclass(frozen=True)
class Term:
    """A thing that people are shown.

    label: what it is called. meaning: in one to three sentences. technical: its name or symbol in papers, empty if that is the
    label. fields: its names in cases.csv, cases.parquet and sidecars.
    """

    label: str
    meaning: str
    technical: str = ""
    fields: tuple[str, ...] = ()

    @property
    def tip(self) -> str:
        """The meaning and, if it has one, the name in papers, as a tooltip."""
        return f"{self.meaning} In papers: {self.technical}." if self.technical else self.meaning

    @property
    def title(self) -> str:
        """The label with a capital letter, for heads and lists of names and values."""
        return titled(self.label)


def titled(label: str) -> str:
    """A label with a capital first letter: "total sensitivity" is "Total sensitivity"."""
    return label[:1].upper() + label[1:]


CASE = Term("case", "One image and all that was made from it, in one folder.", fields=("case",))
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
    "eigenvector of F, the Fisher information matrix of the network at this image",
    ("eigenvector",),
)
COMPONENTS_KEPT = Term(
    "components",
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
    ("high", "norm_high"),
)
LOW = Term(
    "insensitive part (low)",
    "The image without its sensitive part. Very small changes of it hardly move the answer; large ones can.",
    "x_low",
    ("low", "norm_low"),
)
OVERLAY = Term(
    "overlay",
    "A map in colour over the image that it belongs to. How strong it is drawn is for the eye alone: no number depends on it.",
)
HOLDS_UP_TO = Term(
    "holds up to",
    "The longest step along a component that its number describes within 10 %. As a share of the size of the image, |x|, and as "
    "the root mean square change of its values. Beyond it nothing is said.",
    "locality radius",
    ("locality_radius", "locality_share", "locality_rms"),
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
    fields=("means", "volumes"),
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

GLOSSARY = (
    CASE,
    ANSWER,
    LABEL,
    PROBABILITY,
    CONFIDENCE,
    COMPONENT,
    COMPONENTS_KEPT,
    SENSITIVITY_MAP,
    TOTAL_SENSITIVITY,
    SENSITIVITY_ALONG,
    LEADING,
    SENSITIVITY_KEPT,
    SHARE,
    HIGH,
    LOW,
    OVERLAY,
    HOLDS_UP_TO,
    NAT,
    UNIT,
    GRID,
    EXPECTED_VOLUME,
    TOLERANCE,
    STANDS_OUT,
    SATURATED,
    CONVERGENCE,
    RESIDUAL,
    ERROR_BOUND,
    DERIVATIVES,
    PRODUCTS,
    HEAD,
    SECONDS,
)
