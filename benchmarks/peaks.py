"""Peak memory under a budget, and the time that the budget costs. Every number comes from a process of its own.

On the CPU the bars are for the C library's allocator as it comes. glibc's keeps freed blocks of up to 32 MiB for itself,
and how many it then has at the peak differs from run to run. The rows that say "freed blocks returned" were measured with
MALLOC_MMAP_THRESHOLD_ at 1 MiB, where it gives them back: they are what the computation itself holds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from benchmarks.accuracy import largest_relative_error
from benchmarks.memory import Measurement, MeasurementFailed, measured_alone
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting, count

MEBIBYTE = 2**20
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(MEBIBYTE)}
RETURNED_WORDS = "freed blocks returned"
SHARE = 0.40  # of plain autograd's peak
BUDGET = 36 * MEBIBYTE  # a fifth of the rows of a thousand classes at 224^2, little more than the smallest that will do
RANK = 3
MOST_ROUNDS = 3


def memory_budget(setting: Setting) -> list[Row]:
    """Peak under a budget of 40 % of plain autograd's over that budget; its answer and time against no budget at all."""
    size, classes = setting.size(128, 32), 3
    words = _words(setting, dims=3, size=size, classes=classes)
    case = f"ResNet-18 3D {size}^3, C = {classes}"
    rounds = range(min(setting.rounds, MOST_ROUNDS))
    setting.note(f"{case}, plain autograd")
    plain = [measured_alone(["plain", *words]) for _ in rounds]
    peak = statistics.median(found.peak for found in plain)
    limit = int(SHARE * peak)
    without = ["decompose", *words, "--method", "exact", "--rank", str(classes - 1)]
    within = ["decompose", *words, "--budget", str(limit), "--rank", str(classes - 1)]
    budgeted = f"{case}, budget {limit / MEBIBYTE:.0f} MiB ({SHARE:.0%} of plain autograd's peak)"
    setting.note(f"{budgeted}, and exact without one")
    exact: list[Measurement] = []
    under: list[Measurement] = []
    failure = ""
    for _ in rounds:
        exact.append(measured_alone(without))
        try:
            under.append(measured_alone(within))
        except MeasurementFailed as failed:
            failure = str(failed)
    what = "peak of exact / plain autograd's"
    rows = [
        Row("peak of plain autograd", case, peak / MEBIBYTE, None, "MiB", _describe(plain)),
        Row(what, case, statistics.median(found.peak for found in exact) / peak, None, "", _describe(exact)),
    ]
    if failure:
        return [*rows, Row("peak under the budget / budget", budgeted, None, Bar(1.15, False), details=failure)]
    return [*rows, *_within_budget(exact, under, limit, budgeted), *_returned_budget(setting, words, within, case)]


def memory_classes(setting: Setting) -> list[Row]:
    """Peak under one fixed budget as the number of classes grows: (largest - smallest) / smallest."""
    return _peaks_by_classes(setting, {})


def _within_budget(exact: Sequence[Measurement], under: Sequence[Measurement], limit: int, case: str) -> list[Row]:
    error = largest_relative_error(_values(under[0]), _values(exact[0]))
    found = f"{len(under[0].eigenvalues)} of {len(exact[0].eigenvalues)} eigenvalues"
    seconds = {"budget": [one.seconds for one in under], "exact": [one.seconds for one in exact]}
    slower = statistics.median(seconds["budget"]) / statistics.median(seconds["exact"])
    used = statistics.median(one.peak for one in under) / limit
    return [
        Row("peak under the budget / budget", case, used, Bar(1.15, False), "", _describe(under)),
        Row("largest relative error of eigenvalues against exact", case, error, Bar(1e-4, False), "", found),
        Row("seconds under the budget / of exact", case, slower, None, "", "each in a fresh process, cold", seconds),
    ]


def _returned_budget(setting: Setting, words: Sequence[str], within: Sequence[str], case: str) -> list[Row]:
    """The same budget with an allocator that returns all freed memory, and plain autograd's peak with it."""
    if not _has_allocator(setting):
        return []
    plain, under = measured_alone(["plain", *words], RETURNED), measured_alone(within, RETURNED)
    limit = int(within[within.index("--budget") + 1])
    details = f"{_describe([under])}; plain autograd's peak {plain.peak / MEBIBYTE:.0f} MiB"
    return [Row(f"peak under the same budget / budget, {RETURNED_WORDS}", case, under.peak / limit, None, "", details)]


def _peaks_by_classes(setting: Setting, environment: Mapping[str, str]) -> list[Row]:
    size, limit = setting.size(224, 32), setting.size(BUDGET, BUDGET // 10)
    suffix = f", {RETURNED_WORDS}" if environment else ""
    network = f"ResNet-18 2D {size}^2, rank {RANK}, budget {limit / MEBIBYTE:.0f} MiB"
    rows: list[Row] = []
    peaks: list[int] = []
    whole_peaks: list[int] = []
    for classes in (10, 100, 1000)[: setting.size(3, 2)]:
        case = f"{network}, C = {classes}"
        setting.note(case + suffix)
        words = ["decompose", *_words(setting, dims=2, size=size, classes=classes), "--rank", str(RANK), "--budget", str(limit)]
        words += ["--method", "exact"]  # whose rows grow with the classes
        try:
            found = measured_alone(words, environment)
        except MeasurementFailed as failure:
            rows.append(Row(f"peak{suffix}", case, None, None, "MiB", str(failure)))
            continue
        peaks.append(found.peak)
        whole_peaks.append(found.peak + found.before)
        whole = (classes - 1) * size**2 * 4 / MEBIBYTE
        details = f"{_describe([found])}; all rows would take {whole:.0f} MiB"
        rows.append(Row(f"peak{suffix}", case, found.peak / MEBIBYTE, None, "MiB", details))
    spread = (max(peaks) - min(peaks)) / min(peaks) if len(peaks) == len(rows) else None
    bar = None if environment else Bar(0.15, False)
    total = (max(whole_peaks) - min(whole_peaks)) / min(whole_peaks) if len(peaks) == len(rows) else None
    return [
        Row(f"(largest - smallest peak) / smallest{suffix}", network, spread, bar),
        Row("the same of the whole process, libraries and weights included", network, total),
        *rows,
    ]


def _has_allocator(setting: Setting) -> bool:
    """Whether the C library's allocator matters; a smoke test saves the time."""
    return setting.device.type == "cpu" and not setting.quick


def _words(setting: Setting, *, dims: int, size: int, classes: int) -> list[str]:
    values = {"dims": dims, "size": size, "classes": classes, "device": setting.device}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def _values(found: Measurement) -> torch.Tensor:
    return torch.tensor(found.eigenvalues, dtype=torch.float64)


def _describe(found: Sequence[Measurement]) -> str:
    """Peaks, seconds and what was done; one measurement each process."""
    peaks = ", ".join(f"{one.peak / MEBIBYTE:.0f}" for one in found)
    how = f", {found[0].method}, {found[0].products} products" if found[0].method else ""
    seconds = statistics.median(one.seconds for one in found)
    return f"{peaks} MiB, {seconds:.3g} s{how}; {count(len(found), 'run')}"
