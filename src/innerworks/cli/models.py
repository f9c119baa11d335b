"""`innerworks models`: what can be studied."""

import json
from typing import TYPE_CHECKING

import typer

from innerworks.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table


def models(as_json: Json = False) -> None:
    """List the families of models that can be studied, and the specimens that can be fetched by name.

    \b
    Patterns of attention are recorded in every family. Where transformers computes attention in a family's own
    code they are recorded only; elsewhere they, and scores, queries, keys and values, are edited, too.

    \b
    Layout says where a family knows positions from, and how it differs from norm, attention, add, norm, feed-forward, add:
      rotary               queries and keys are rotated by position
      parallel             attention and feed-forward read the same stream, so there is no resid_mid
      post-norm            what a sub-layer computes is normed before it is added to the stream
      post-LN stream       the stream itself is normed after each addition, so it is no sum of parts
      QK-norm              queries and keys are normed (in some families: where the configuration says so)
      mixture of experts   neurons are called L5E3N12 (layer, expert, neuron) instead of L5N12
      (an option)          where the configuration of the model says so

    Only with: with another value of this option, a model is refused when it is loaded.

    Does a model of yours work? Ask: innerworks certify MODEL. How to add a family: docs/families.md.
    """
    from innerworks.cli.screen import output
    from innerworks.model.adapters import FAMILIES
    from innerworks.model.adapters.described import COLUMNS, described
    from innerworks.model.specimen import SPECIMENS, is_cached

    families = [described(adapter) for adapter in FAMILIES.values()]
    if as_json:
        data = {one.family: vars(one) for one in families}
        specimens = {name: {"says": one.says, "cached": is_cached(name)} for name, one in SPECIMENS.items()}
        typer.echo(json.dumps({"families": data, "specimens": specimens}))
        return
    output.print(_table("Families", COLUMNS, [one.cells() for one in families]))
    here = [(name, one.says, "yes" if is_cached(name) else f"no ({one.size})") for name, one in SPECIMENS.items()]
    output.print(_table("\nSpecimens", ("name", "what it is", "here?"), here))


def _table(title: str, columns: tuple[str, ...], rows: "list[tuple[str, ...]]") -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("family", "name", "here?"))
    for row in rows:
        table.add_row(*row)
    return table
