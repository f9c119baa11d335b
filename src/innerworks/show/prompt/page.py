"""A prompt's figure as HTML: a piece that stands in a notebook, and a page of its own. It loads nothing and runs no script.

Everything that comes from a model or a text is escaped.
"""

import os
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from innerworks.errors import UsageError
from innerworks.show import numbers
from innerworks.show.pages import put, templates
from innerworks.show.tokens import visible

LIFT = 0.6  # weak probabilities are lifted, as in figures of attention


def fragment(template: str, one: object) -> str:
    """The piece: the figure with its style, for a notebook or inside a page."""
    return _environment().get_template(template).render(one=one, style=Markup(_part("style.css")))


def document(title: str, body: str) -> str:
    """The page around a piece, which `fragment` has escaped."""
    return _environment().get_template("document.html").render(title=title, body=Markup(body))


def writable(path: Path, option: str) -> None:
    """Raise UsageError where a page cannot be written: before the work, not after it."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: no file can be written there. Give one in a folder that exists.")


def write(path: str | Path, html: str) -> Path:
    """Write a page, whole or not at all, and return its path."""
    path = Path(path)
    try:
        put(path, html)
    except OSError as error:
        raise UsageError(f"{path} could not be written: {error.strerror}. Give another place for it.") from error
    return path


def _environment() -> Environment:
    made = templates(_part)
    made.filters.update(visible=visible, lifted=lambda probability: round(probability**LIFT, 3), percent=percent)
    made.globals.update(numbers=numbers)
    return made


def percent(probability: float) -> str:
    """A probability in few letters: 83%, <1%, 100%.

    >>> percent(0.834), percent(0.0001), percent(0.9999)
    ('83%', '<1%', '>99%')
    """
    if probability < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= probability < 1 else f"{probability:.0%}"


def _part(name: str) -> str:
    return files("innerworks.show.prompt").joinpath(name).read_text(encoding="utf-8")
