"""Put content and template together, and the page on disk, whole or not at all."""

from importlib.resources import files
from pathlib import Path

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from innerworks.atlas import Atlas, schema
from innerworks.errors import AtlasError
from innerworks.show import numbers
from innerworks.show.behaviours import RUNGS
from innerworks.show.pages import put, templates
from innerworks.show.report.content import content, linked
from innerworks.show.report.tables import groups

SCRIPTS = ("script.js", "head.js", "neurons.js", "route.js")  # in the order in which they need each other


def render(atlas: Atlas) -> str:
    """Return the page as text: HTML with all it needs inside (about 6 MB, most of it plotly.js)."""
    environment = templates(_part)
    environment.filters["groups"] = groups
    environment.filters["linked"] = linked
    environment.globals.update(numbers=numbers, RUNGS=RUNGS)
    return environment.get_template("template.html").render(
        page=content(atlas),
        style=Markup(_part("style.css")),  # ours, as are the scripts
        script=Markup("".join(_part(name) for name in SCRIPTS)),
        plotly=Markup(get_plotlyjs()),
    )


def write(atlas: Atlas, path: str | Path | None = None) -> Path:
    """Write the page (into the atlas, if not told where) and return its path. Raises AtlasError if that cannot be."""
    path = atlas.path / schema.REPORT if path is None else Path(path)
    text = render(atlas)
    try:
        put(path, text)
    except OSError as error:
        raise AtlasError(f"The report {path} could not be written: {error.strerror}. Give another place for it.") from error
    return path


def _part(name: str) -> str:
    return files("innerworks.show.report").joinpath(name).read_text(encoding="utf-8")
