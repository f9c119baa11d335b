"""Everything that an atlas knows about one dimension of the stream behind one layer: how far it sticks out, and what it costs."""

from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from innerworks.atlas import Atlas
from innerworks.errors import UnknownSite
from innerworks.show.page import LEGEND, table_of
from innerworks.show.verdicts import score_of
from innerworks.sites import Site


def dimension_page(atlas: Atlas, site: str | Site) -> RenderableType:
    """Every score of a dimension against its null. Raises UnknownSite for one that was not tested."""
    rows = rows_of(atlas, site)
    notes = [Text(f"  {row['note']}", style="dim") for row in rows.iter_rows(named=True) if row["note"]]
    table = table_of([score_of(row) for row in rows.iter_rows(named=True)], ())
    return Group(Text(rows["site"][0], style="bold"), table, *notes, Text(LEGEND, style="dim"))


def as_json(atlas: Atlas, site: str | Site) -> dict[str, Any]:
    """The same as plain data."""
    rows = rows_of(atlas, site)
    return {"site": rows["site"][0], "findings": rows.fill_nan(None).to_dicts()}


def rows_of(atlas: Atlas, site: str | Site) -> pl.DataFrame:
    """The findings about a dimension."""
    place = Site.parse(site)
    name = str(Site(layer=place.layer, dimension=place.dimension))
    of_dimensions = atlas.findings.filter((pl.col("chapter") == "residual") & pl.col("index").is_not_null())
    rows = of_dimensions.filter(pl.col("site") == name)
    if rows.is_empty():
        some = ", ".join(of_dimensions.sort("effect", descending=True)["site"].unique(maintain_order=True).head(4))
        tested = (
            f"Only what sticks out is: here {some} most."
            if some
            else "This atlas holds nothing of the stream: scan with --only residual."
        )
        raise UnknownSite(f"{name} was not tested. {tested}")
    return rows
