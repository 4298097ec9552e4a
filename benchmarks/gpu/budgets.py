"""Peaks of memory under budgets, in this process: a GPU's memory is counted from the start of each measurement."""

from __future__ import annotations

from functools import partial

from benchmarks.accuracy import largest_relative_error
from benchmarks.baselines import bare_passes
from benchmarks.memory import Peak
from benchmarks.networks import residual18
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import decompose
from monai_ifim.core import IFIMError

MEBIBYTE = 2**20
SHARES = (0.8, 0.6, 0.4)  # of the peak of plain passes


def budgets(setting: Setting) -> list[Row]:
    """Peak over the budget, and seconds over those without one, for budgets of some shares of plain autograd's peak."""
    edge = setting.size(128, 32)
    one = residual18(3, 3, edge, setting.device)
    setting.note(f"budgets, {one.title}")
    run = partial(decompose, one.network, one.image, head="categorical", method="exact", energy=1.0, verify="never")
    bare_passes(one.network, one.image, one.classes)
    with Peak(setting.device) as plain:
        bare_passes(one.network, one.image, one.classes)
    truth = run().eigenvalues[0]
    rows = [Row("peak of plain autograd", one.title, plain.above / MEBIBYTE, None, "MiB")]
    for share in SHARES:
        limit = int(share * plain.above)
        case = f"{one.title}, budget {limit / MEBIBYTE:.0f} MiB ({share:.0%} of plain autograd's peak)"
        within = partial(run, memory_budget=limit)
        try:
            found = within().eigenvalues[0]
        except IFIMError as refused:  # a budget that is too small for the network, at the sizes of a smoke test
            rows.append(Row("peak under the budget / budget", case, None, details=str(refused)))
            continue
        with Peak(setting.device) as peak:
            within()
        timings = setting.measure({"budget": within, "exact": run})
        details = f"{timings.describe()}; eigenvalues off by up to {largest_relative_error(found, truth):.1e}"
        rows.append(Row("peak under the budget / budget", case, peak.above / limit, Bar(1.15, False), "", details))
        rows.append(Row("seconds under the budget / of exact", case, timings.ratio("budget", "exact"), seconds=timings.seconds))
    return rows
