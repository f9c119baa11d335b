"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An atlas: the folder that `innerworks scan` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random. The same seed gives the same numbers.")]
