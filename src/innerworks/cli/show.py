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

    \b
    Examples:
      innerworks show smollm2.atlas
      innerworks show smollm2.atlas L18H6
    """
    import json
    from dataclasses import replace

    import polars as pl
    from rich.console import Console

    from innerworks.atlas import Atlas
    from innerworks.show.page import head_page, summary
    from innerworks.sites import Site

    atlas, console = Atlas.open(folder), Console(highlight=False)
    if not as_json:
        console.print(summary(atlas) if site is None else head_page(atlas, site))
        return
    said: dict[str, object] = {"atlas": str(folder)}
    if site is None:
        said["labels"] = atlas.labels.fill_nan(None).to_dicts()
    else:
        head_page(atlas, site)  # refuses a head that the model has not
        said["site"] = head = str(replace(Site.parse(site), kind=None))
        said["findings"] = atlas.findings.fill_nan(None).filter(pl.col("site") == head).to_dicts()
    console.print(json.dumps(said, ensure_ascii=False), soft_wrap=True, markup=False)
