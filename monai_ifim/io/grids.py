"""The two grids of a case, and which of its numbers belong to which. Plain Python, so that the viewer can use it."""

from __future__ import annotations

from typing import Literal

Grid = Literal["network", "input"]

MEANING = {
    "network": "the grid of what the network saw, after the preprocessing",
    "input": "the input's own grid; what was carried there is zero outside of what the network saw, and lacks what was padded",
}


def computed_grid(space: str) -> Grid:
    """The grid of the decomposition of a space: of eigenvalues, trace, locality, norms of the image and its components."""
    return "input" if space == "scanner" else "network"


def grid_of_files(space: str) -> Grid:
    """The grid of the files of a space."""
    return "network" if space == "network" else "input"


def on(grid: Grid) -> str:
    """The grid in words, after the name of a quantity."""
    return f"on the {grid}'s grid"


def per_square(step: str, grid: Grid) -> str:
    """The unit of an eigenvalue: nats per square of a step whose unit is `step` and whose length is the L2 norm on a grid."""
    return f"nats per ({step} {on(grid)})^2"


def without_grid(unit: str) -> str:
    """A unit of `per_square` without its grid, as sidecars before 2.4 state it."""
    for grid in ("network", "input"):
        unit = unit.replace(f" {on(grid)})^2", ")^2")
    return unit
