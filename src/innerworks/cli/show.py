"""`innerworks show`: what an atlas says, in the terminal."""

from typing import Annotated

import typer

from innerworks.cli.options import Folder, Json


def show(
    folder: Folder,
    site: Annotated[
        str | None, typer.Argument(metavar="[SITE]", help="A head, for instance L10H7. Without it: the summary.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the summary of an atlas, or everything it knows about one head.

    Examples:

      innerworks show smollm2.atlas
      innerworks show smollm2.atlas L18H6
    """
    from rich.console import Console

    from innerworks.atlas import Atlas
    from innerworks.show.page import head_page, summary

    atlas, console = Atlas.open(folder), Console(highlight=False)
    if not as_json:
        console.print(summary(atlas) if site is None else head_page(atlas, site))
        return
    page = None if site is None else head_page(atlas, site)  # refuses a head that the model has not
    import polars as pl

    rows = atlas.labels if page is None else atlas.findings.filter(pl.col("site") == site)
    console.print(rows.write_json(), soft_wrap=True, markup=False)
