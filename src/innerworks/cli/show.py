"""`innerworks show`: what an atlas says, in the terminal."""

from typing import Annotated

import typer

from innerworks.cli.options import Folder, Json


def show(
    folder: Folder,
    site: Annotated[
        str | None,
        typer.Argument(metavar="[SITE]", help="A head, neuron or dimension, for instance L10H7. Without it: the summary."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the summary of an atlas, or everything it knows about one head, feed-forward neuron or dimension of the stream: its
    labels, where it looks or what it responds to, what it writes, what breaks without it, and its partners.

    \b
    Examples:
      innerworks show smollm2.atlas
      innerworks show smollm2.atlas L18H6
      innerworks show smollm2.atlas L18H6 --json
      innerworks show smollm2.atlas L11N584
      innerworks show smollm2.atlas L2D507
    """
    import json

    from innerworks.atlas import Atlas
    from innerworks.cli.screen import output
    from innerworks.show import dimension, head, neuron
    from innerworks.show.neuron_page import neuron_page
    from innerworks.show.page import head_page, summary
    from innerworks.sites import Site

    atlas = Atlas.open(folder)
    place = None if site is None else Site.parse(site)
    of_neuron = place is not None and place.neuron is not None
    of_stream = place is not None and place.dimension is not None
    if not as_json:
        page = dimension.dimension_page if of_stream else neuron_page if of_neuron else head_page
        output.print(summary(atlas) if site is None else page(atlas, site))
        return
    if site is None:
        said = {"labels": atlas.labels.fill_nan(None).to_dicts()}
    elif of_stream:
        said = dimension.as_json(atlas, site)
    elif of_neuron:
        said = neuron.as_json(neuron.neuron_page_of(atlas, site), atlas.findings)
    else:
        said = head.as_json(head.page_of(atlas, site), atlas.findings)
    typer.echo(json.dumps({"atlas": str(folder), **said}, ensure_ascii=False))
