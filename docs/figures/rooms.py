"""Draws rooms.svg, the floors and rooms of the package.

Run: python -m docs.figures rooms. The order of the floors is that of the import contract in pyproject.toml; the rooms of a floor
are its folders, and the text is the first line of each docstring.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH, MARGIN, GAP, PADDING, LINE = 960, 56, 8, 12, 18  # pixels
LETTER = 6.4  # width of a letter, pixels
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b2733}.floor{font:bold 14px ui-monospace,monospace}"
    ".room{font:bold 12px ui-monospace,monospace}.said{fill:#44525f}"
)


def floors() -> list[list[str]]:
    """Names of the floors, a list a layer, from the roof down to the ground."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["id"] == "floors"]
    return [layer.split(" | ") for layer in contract["layers"]]


def meaning(folder: Path) -> str:
    """First line of the docstring of a package."""
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


def content(floor: str, width: float) -> list[tuple[str, str]]:
    """(class, text) of every line in the box of a floor that is `width` pixels wide."""
    folder = ROOT / "monai_ifim" / floor
    letters = int((width - 2 * PADDING) / LETTER)
    lines = [("floor", floor), *(("said", line) for line in textwrap.wrap(meaning(folder), letters))]
    for room in sorted(path.parent for path in folder.glob("*/__init__.py")):
        said = textwrap.wrap(f"{room.name}/  {meaning(room)}", letters)
        lines += [("room", said[0]), *(("said", line) for line in said[1:])]
    return lines


def box(floor: str, x: float, y: float, width: float, height: float) -> list[str]:
    """The elements of one floor."""
    drawn = [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="#eef3f8" stroke="#8fa3b5"/>']
    for i, (kind, text) in enumerate(content(floor, width)):
        place = f'x="{x + PADDING:g}" y="{y + PADDING + LINE * (i + 0.7):g}"'
        name, slash, said = text.partition("/  ")
        if kind == "room" and slash:
            drawn.append(
                f'<text {place}><tspan class="room">{name}</tspan><tspan class="said" dx="8">{escape(said)}</tspan></text>'
            )
        else:
            drawn.append(f'<text {place} class="{kind}">{escape(text)}</text>')
    return drawn


def draw() -> str:
    """The figure as SVG."""
    y, drawn = float(GAP), []
    for layer in floors():
        width = (WIDTH - MARGIN - GAP * len(layer)) / len(layer)
        height = max(len(content(floor, width)) for floor in layer) * LINE + 2 * PADDING
        for i, floor in enumerate(layer):
            drawn += box(floor, MARGIN + i * (width + GAP), y, width, height)
        y += height + GAP
    arrow = (
        f'<path d="M40 {GAP}V{y - 2 * GAP:g}m-5 -9l5 9 5 -9" fill="none" stroke="#44525f" stroke-width="1.5"/>'
        f'<text transform="translate(26 {y / 2:g}) rotate(-90)" text-anchor="middle">imports only what is below</text>'
    )
    title = "<title>The floors of monai_ifim and the rooms on each; a floor imports only floors below it</title>"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" role="img">',
            title,
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            arrow,
            *drawn,
            "</svg>\n",
        ]
    )


def draw_figures(demo: Path, output: Path) -> None:
    """Write it; the demo is not drawn."""
    (output / "rooms.svg").write_text(draw(), encoding="utf-8")
