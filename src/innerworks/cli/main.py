"""The `innerworks` command."""

import sys
from typing import Annotated

import typer

from innerworks import __version__
from innerworks.cli.attribute import attribute
from innerworks.cli.certify import certify
from innerworks.cli.claims import claims
from innerworks.cli.collect import collect
from innerworks.cli.lens import lens
from innerworks.cli.models import models
from innerworks.cli.phantoms import phantoms
from innerworks.cli.report import report
from innerworks.cli.scan import scan
from innerworks.cli.show import show
from innerworks.cli.stream import stream
from innerworks.cli.universal import universal

DONE, FAILED, BAD_USAGE = 0, 1, 2

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for verb in (scan, report, show, claims, collect, models, certify, phantoms, lens, attribute, stream, universal):
    app.command()(verb)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"innerworks {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """innerworks, a scanner for language models: which of the known inner workings are at work in this one?

    Begin with: innerworks scan --depth quick
    """


def run() -> None:
    """Run the command; a failure becomes one line on standard error and an exit code (1 failed, 2 bad usage)."""
    from innerworks.errors import InnerworksError, UsageError

    try:
        app()
    except InnerworksError as error:
        typer.echo(f"innerworks: {error}", err=True)
        sys.exit(BAD_USAGE if isinstance(error, UsageError) else FAILED)


if __name__ == "__main__":
    run()
