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
    """Show the summary of an atlas, or everything it knows about one head: its labels, where it looks, what it writes, what
    breaks without it, and its partners.

    \b
    Examples:
      innerworks show smollm2.atlas
      innerworks show smollm2.atlas L18H6
      innerworks show smollm2.atlas L18H6 --json
    """
    import json

    from innerworks.atlas import Atlas
    from innerworks.cli.screen import output
    from innerworks.show.head import as_json as head_as_json
    from innerworks.show.head import page_of
    from innerworks.show.page import head_page, summary

    atlas = Atlas.open(folder)
    if not as_json:
        output.print(summary(atlas) if site is None else head_page(atlas, site))
        return
    if site is None:
        said = {"labels": atlas.labels.fill_nan(None).to_dicts()}
    else:
        said = head_as_json(page_of(atlas, site), atlas.findings)
    typer.echo(json.dumps({"atlas": str(folder), **said}, ensure_ascii=False))
