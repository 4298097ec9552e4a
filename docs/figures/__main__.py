"""Makes the figures and the numbers of the pages.

python -m docs.figures                  all figures, and every number between the marks of docs/figures/numbers.py
python -m docs.figures plots scanner    the figures of two groups, and the numbers
python -m docs.figures --check          draws nothing: names what is stale, and ends with 1 if anything is

Figures of the demo need a run of it (half a minute); some need other programs, which are named where they are missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from docs.figures.catalogue import FIGURES, GROUPS, MissingProgramError, draw_of
from docs.figures.demo import keep_results, run_demo
from docs.figures.numbers import stale_pages, write_numbers
from docs.figures.record import older_figures, stale_figures, unknown_figures, write_record


def main(words: list[str] | None = None) -> int:
    """Draw, write, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--check", action="store_true", help="draw nothing, name what is stale")
    given = parser.parse_args(words)
    if unknown := set(given.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}: give some of {', '.join(GROUPS)}")
    if not given.check:
        make_figures(given.groups or list(GROUPS))
    found = [*stale_figures(), *older_figures(), *unknown_figures(), *stale_pages()]
    print("\n".join(found) or "nothing is stale")
    return int(bool(found))


def make_figures(groups: list[str]) -> None:
    """Draw the figures of some groups, and write the numbers of all pages. A group that lacks a program is named and left out."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "ifim_demo"
        keep_results(run_demo(demo))
        write_numbers()
        for group in groups:
            drawn = Path(folder) / group
            drawn.mkdir()
            try:
                draw_of(group)(demo, drawn)
            except MissingProgramError as error:
                print(f"{group}: not drawn, {error} (needs {GROUPS[group].needs})", file=sys.stderr)
                continue
            for name in GROUPS[group].files:
                shutil.move(drawn / name, FIGURES / name)
            write_record([group])
            print(f"{group}: {', '.join(GROUPS[group].files)}")


if __name__ == "__main__":
    sys.exit(main())
