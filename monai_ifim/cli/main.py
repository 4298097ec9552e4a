"""Entry point of `monai-ifim`. Nothing heavy is imported until a verb runs, so that --help answers at once."""

from __future__ import annotations

import logging
import sys
import warnings

import typer
from rich.console import Console

from monai_ifim.cli.check import check
from monai_ifim.cli.config import config
from monai_ifim.cli.decompose import decompose
from monai_ifim.cli.demo import demo
from monai_ifim.cli.evaluate import evaluate
from monai_ifim.cli.pacs import pacs
from monai_ifim.cli.page import page
from monai_ifim.cli.streams import make_streams_forgiving
from monai_ifim.cli.verify import verify
from monai_ifim.cli.view import view
from monai_ifim.options import on_command_line
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
app.command()(page)
app.command()(config)
app.command()(view)
app.command()(verify)
app.command()(pacs)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"monai-ifim {__version__}")
        raise typer.Exit


LOG = logging.getLogger("monai_ifim")


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error, not only its message."),
) -> None:
    """Input-dependent Fisher information of medical image classifiers."""
    if debug:
        LOG.addHandler(logging.StreamHandler())
        LOG.setLevel(logging.DEBUG)


def _warning_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    return f"warning: {on_command_line(' '.join(str(message).split()))}\n"


def main() -> None:
    """Run the command line; an error is one line on standard error and exit status 1; its traceback goes to the log."""
    make_streams_forgiving()
    warnings.formatwarning = _warning_line
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from monai_ifim.io.errors import explained

        LOG.debug("where the error arose:", exc_info=error)
        said = f"error: {on_command_line(explained(error))}"
        Console(stderr=True, soft_wrap=True).print(said, style="bold red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
