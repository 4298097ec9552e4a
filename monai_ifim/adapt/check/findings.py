"""What a check finds: properties of a network, and the cost of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One property of the network: if it holds, and what was observed. certain: False where that was assumed or left open."""

    name: str
    passed: bool
    detail: str
    certain: bool = True


@dataclass(frozen=True)
class Cost:
    """Time and memory of one image, extrapolated from a few passes of each kind after one that warmed up.

    products, most_products: Jacobian products, as few as usual and at most; of these, steps and most_steps are Jacobian-vector
    products (of the matrix-free method), the others vector-Jacobian ones. forward_seconds, product_seconds, step_seconds: of one,
    the fastest that was timed; slowest_product_seconds: the slowest. locality_seconds,
    most_locality_seconds: of the locality radius. files_seconds, most_files_seconds: of writing the files, on the grid that the
    image has. seconds, most_seconds: all of these. peak_bytes: weights_bytes, results_bytes (rows and components, by arithmetic)
    and pass_bytes, the most that PyTorch's tensors hold at once until the first products are made; without buffers inside the
    kernels.
    """

    device: str
    method: str
    products: int
    most_products: int
    steps: int
    most_steps: int
    forward_seconds: float
    product_seconds: float
    slowest_product_seconds: float
    step_seconds: float
    locality_seconds: float
    most_locality_seconds: float
    files_seconds: float
    most_files_seconds: float
    seconds: float
    most_seconds: float
    weights_bytes: int
    pass_bytes: int
    results_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class NetworkReport:
    """All findings on one network, in the order of the checks; outputs, head and cost are None if not reached."""

    findings: tuple[Finding, ...]
    outputs: int | None = None
    head: str | None = None
    cost: Cost | None = None

    @property
    def fit(self) -> bool:
        """True if every property holds."""
        return all(finding.passed for finding in self.findings)


@dataclass
class Listener:
    """Who is told of a check while it runs: tell, each finding; doing, what comes next, in words. findings: those so far."""

    tell: Callable[[Finding], None] = lambda finding: None
    doing: Callable[[str], None] = lambda words: None
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep a finding and tell it."""
        self.findings.append(finding)
        self.tell(finding)
