"""Where the numbers come from: the manifest as lists of names and values, and the certificate as a table."""

from collections.abc import Mapping
from typing import Any

from innerworks.show import numbers


def settings(manifest: Mapping[str, Any]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Every part of the manifest as (title, ((name, value), ...)), whatever it holds."""
    first = ("model", "corpus", "settings", "units", "timings", "versions", "tokenizer")
    names = [name for name in first if name in manifest]
    names += sorted(name for name in manifest if name not in (*first, "certificate", "schema"))
    parts = [(name, tuple(_flat(manifest[name], seconds=name == "timings"))) for name in names]
    return (*((name, rows) for name, rows in parts if rows), ("atlas", (("schema", str(manifest.get("schema", "?"))),)))


def _flat(value: Any, *, name: str = "", seconds: bool) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for key, one in value.items() for row in _flat(one, name=f"{name} {key}".strip(), seconds=seconds)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(_plain(one, seconds=seconds) for one in value))] if value else []
    return [(name or "value", _plain(value, seconds=seconds))]


def _plain(value: Any, *, seconds: bool) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and seconds:
        return numbers.duration(value)
    if isinstance(value, int):
        return numbers.count(value)
    return numbers.rounded(value, 3) if isinstance(value, float) else str(value)


def certificate(manifest: Mapping[str, Any]) -> tuple[tuple[str, str, str, bool], ...]:
    """Every check that the model passed when it was loaded: (what, difference, allowed, passed)."""
    checks = manifest.get("certificate", {}).get("checks", [])
    return tuple(
        (str(c["what"]), numbers.small(c["difference"]), numbers.small(c["allowed"]), c["difference"] <= c["allowed"])
        for c in checks
    )
