"""`innerworks show`: what an atlas says, in the terminal."""

from typing import Annotated

import typer

from innerworks.cli.options import Folder, Json


def show(
    folder: Folder,
    site: Annotated[
        str | None,
        typer.Argument(metavar="[SITE]", help="A head or neuron, for instance L10H7 or L11N584. Without it: the summary."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the summary of an atlas, or everything it knows about one head or feed-forward neuron: its labels, where it looks or
    what it responds to, what it writes, what breaks without it, and its partners.

    \b
    Examples:
      innerworks show smollm2.atlas
      innerworks show smollm2.atlas L18H6
      innerworks show smollm2.atlas L18H6 --json
      innerworks show smollm2.atlas L11N584
    """
    import json

    from innerworks.atlas import Atlas
    from innerworks.cli.screen import output
    from innerworks.show import head, neuron
    from innerworks.show.neuron_page import neuron_page
    from innerworks.show.page import head_page, summary
    from innerworks.sites import Site

    atlas = Atlas.open(folder)
    of_neuron = site is not None and Site.parse(site).neuron is not None
    if not as_json:
        output.print(summary(atlas) if site is None else (neuron_page if of_neuron else head_page)(atlas, site))
        return
    if site is None:
        said = {"labels": atlas.labels.fill_nan(None).to_dicts()}
    elif of_neuron:
        said = neuron.as_json(neuron.neuron_page_of(atlas, site), atlas.findings)
    else:
        said = head.as_json(head.page_of(atlas, site), atlas.findings)
    typer.echo(json.dumps({"atlas": str(folder), **said}, ensure_ascii=False))
