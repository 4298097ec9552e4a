"""A decomposition in a notebook: an HTML table with a small figure, and one line of text."""

from __future__ import annotations

import base64
from html import escape

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.display.coordinate_words import UNTRIED, move_words
from monai_ifim.display.figure import draw, png
from monai_ifim.display.numbers import FIRM_SPACE, count, counted, number, percent, range_text, sizes
from monai_ifim.display.saturation import SATURATED
from monai_ifim.display.vocabulary import (
    ANSWER,
    COMPONENT,
    COMPONENTS_KEPT,
    ERROR_BOUND,
    LEADING,
    PER_UNIT,
    SENSITIVITY_KEPT,
    TOTAL_SENSITIVITY,
)
from monai_ifim.display.wording import answer, method, trace_text, unit

MOST_IMAGES = 5  # rows of the table at most
MOST_COORDINATES = 12  # rows of their table at most
MOST_EIGENVALUES = 3  # in a cell of the table at most
PREVIEWS = (256, 128, 64, 32)  # sizes of a plane that are tried, in pixels on a side
PREVIEW_BYTES = 220_000  # largest PNG file of the figure; a third more in base64


def notebook_html(d: Decomposition) -> str:
    """Self-contained HTML: a table of the first images and the figure of the first one.

    It does not raise, as a notebook would show the traceback instead: without a figure it is the table, without both a line.
    """
    try:
        table = _table(d) + _coordinates(d)
    except Exception:  # for example a device that is gone
        return f"<pre>{escape(object.__repr__(d))}</pre>"
    try:
        picture = _preview(d)
    except Exception:
        picture = ""
    return f"<div>{table}{picture}</div>"


def repr_text(d: Decomposition) -> str:
    """One line: shape, dtype and device of the images, head, method, components and sensitivity kept. ASCII alone, as any console
    and log can hold it."""
    images = f"{counted(d.image.shape[0], 'image')} {list(d.image.shape[1:])}"
    dtype = str(d.image.dtype).removeprefix("torch.")
    rank, energy = range_text(d.rank.tolist(), count), range_text(d.energy.tolist(), percent)
    noun = COMPONENT.label if rank == "1" else f"{COMPONENT.label}s"
    how = f"{d.record['head']}, {d.record['method']}"
    ended = "" if bool(d.converged.all()) else ", not converged"
    saturated = sum(each.saturated is True for each in d.saturation)
    still = f", {count(saturated)} saturated" if saturated else ""
    text = f"Decomposition({images} {dtype} on {d.image.device}: {how}, {rank} {noun}, {energy} of the sensitivity{ended}{still})"
    return text.replace(FIRM_SPACE, " ").encode("ascii", "backslashreplace").decode()


def _table(d: Decomposition) -> str:
    """Table with a row for each of the first images; the caption states what all have in common."""
    batch = d.image.shape[0]
    terms = (ANSWER, COMPONENTS_KEPT, TOTAL_SENSITIVITY, LEADING, SENSITIVITY_KEPT, ERROR_BOUND)
    labels = {TOTAL_SENSITIVITY: f"{TOTAL_SENSITIVITY.label} ({PER_UNIT})", LEADING: f"{LEADING.label}s (share)"}
    heads = ("<th>image</th>", *(f"<th title='{escape(term.tip)}'>{escape(labels.get(term, term.label))}</th>" for term in terms))
    rows = [[escape(cell) for cell in _cells(d, b)] for b in range(min(batch, MOST_IMAGES))]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    rest = f"<tr><td colspan='{len(heads)}'>and {batch - len(rows)} more</td></tr>" if batch > len(rows) else ""
    caption = f"Decomposition of {counted(batch, 'image')}, {sizes(d.image.shape[1:])}; {method(d)}; unit: {unit(d)}"
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{''.join(heads)}</tr></thead><tbody>{body}{rest}</tbody></table>"
    )


def _coordinates(d: Decomposition) -> str:
    """Table of what the coordinates cost the first image, the costliest first; empty without coordinates."""
    found = d.coordinates
    if found is None:
        return ""
    nats, step = found.nats_per_unit[0].tolist(), found.step[0].tolist()
    order = sorted(range(len(found.names)), key=lambda i: -nats[i])
    rows = [
        (move_words(found.names[i], found.units[i]), number(nats[i]), f"{number(step[i])} {found.units[i]}")
        for i in order[:MOST_COORDINATES]
    ]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    left = len(order) - len(rows)
    rest = f"<tr><td colspan='3'>and {left} more</td></tr>" if left > 0 else ""
    heads = "<th>move of image 0</th><th>nats</th><th>0.1 nat at</th>"
    return f"<table><caption>{UNTRIED}</caption><thead><tr>{heads}</tr></thead><tbody>{body}{rest}</tbody></table>"


def _cells(d: Decomposition, index: int) -> tuple[str, ...]:
    rank, trace = int(d.rank[index]), float(d.trace[index])
    values = d.eigenvalues[index, : min(rank, MOST_EIGENVALUES)].tolist()
    listed = [f"{number(value)} ({percent(value / trace)})" for value in values] + ["…"] * (rank > MOST_EIGENVALUES)
    return (
        str(index),
        f"{answer(d, index)}{f' ({SATURATED})' if d.saturation[index].saturated else ''}",
        f"{rank}{'' if bool(d.converged[index]) else ' (not converged)'}",
        trace_text(d, index),
        ", ".join(listed) or "none",
        percent(float(d.energy[index])),
        number(float(d.error_bound[index])),
    )


def _preview(d: Decomposition) -> str:
    """HTML element with the figure of the first image, at the finest of PREVIEWS that is small enough."""
    for largest in PREVIEWS:
        content = png(draw(d, 0, 0, MOST_EIGENVALUES, None, largest))
        if len(content) <= PREVIEW_BYTES:
            break
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f"<img alt='sensitivity by component and maps of image 0' style='max-width: 100%; background: white' src='{source}'>"
