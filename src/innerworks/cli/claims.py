"""`innerworks claims`: the ledger of an atlas."""

import json
from typing import Annotated

import typer

from innerworks.cli.options import Folder, Json


def claims(
    folder: Folder,
    claim: Annotated[
        str | None, typer.Argument(metavar="CLAIM", help="A claim, for instance A6. Without it: all of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say for each claim of the literature whether it holds in the scanned model, and on what that rests.

    A claim holds, holds in part, does not hold (which needs power), is not applicable, or is not measured.

    \b
    Examples:
      innerworks claims smollm2.atlas
      innerworks claims smollm2.atlas A6
    """
    from innerworks.atlas import Atlas
    from innerworks.cli.screen import output
    from innerworks.show.ledger import claim_page, entries, ledger

    atlas = Atlas.open(folder)
    page = ledger(atlas) if claim is None else claim_page(atlas, claim)
    if as_json:
        rows = [vars(entry) for entry in entries(atlas) if claim is None or entry.id == claim.upper()]
        typer.echo(json.dumps({"atlas": str(folder), "claims": rows}, ensure_ascii=False))
        return
    output.print(page)
