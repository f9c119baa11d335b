"""Pages on disk, whole or not at all, and how their templates are read."""

import os
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined


def templates(part: Callable[[str], str]) -> Environment:
    """Templates by name, with everything escaped and nothing silently missing."""
    return Environment(
        loader=FunctionLoader(part), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def put(path: Path, html: str) -> None:
    """Write a page; raises OSError, and then nothing of it is left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
