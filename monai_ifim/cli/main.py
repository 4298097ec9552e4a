"""Entry point of `monai-ifim`. Nothing heavy is imported until a verb runs, so that --help answers at once."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from monai_ifim.cli.check import check
from monai_ifim.cli.config import config
from monai_ifim.cli.decompose import decompose
from monai_ifim.cli.demo import demo
from monai_ifim.cli.evaluate import evaluate
from monai_ifim.cli.pacs import pacs
from monai_ifim.cli.view import view
from monai_ifim.version import __version__

app = typer.Typer(
    name="monai-ifim",
    help="Which small changes of this very image would move the classifier's answer? Input-dependent Fisher information.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(check)
app.command()(decompose)
app.command()(evaluate)
app.command()(config)
app.command()(view)
app.command()(pacs)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"monai-ifim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Input-dependent Fisher information of medical image classifiers."""


def main() -> None:
    """Run the command line; an expected error is one line on standard error and exit status 1."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from monai_ifim.core.errors import IFIMError

        if not isinstance(error, IFIMError):
            raise
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="bold red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
