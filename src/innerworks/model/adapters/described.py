"""Each family in words, from the data of its adapter and from nothing else: for `innerworks models` and docs/families.md.

What depends on the configuration is found by asking the adapter with every option on and with every option off; the options
it looked at stand in parentheses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from innerworks.model.adapters.adapter import Adapter

COLUMNS = ("family", "patterns", "layout", "only with", "classes")


@dataclass(frozen=True, kw_only=True)
class Described:
    """One family in words."""

    family: str
    patterns: str  # can attention patterns be edited, or only recorded?
    layout: tuple[str, ...]  # how it differs from attention, then feed-forward, each after a norm and then added
    only_with: tuple[str, ...]  # options of its configuration of which one value is handled and every other refused
    classes: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        """Return its row of a table, in the order of COLUMNS."""
        lists = (", ".join(one) for one in (self.layout, self.only_with, self.classes))
        return self.family, self.patterns, *lists


def described(adapter: Adapter) -> Described:
    """What is this family like?"""
    layout = [
        _positions(adapter),
        _sometimes("parallel", adapter.parallel),
        "post-norm" if adapter.post_norms else None,
        _sometimes("post-LN stream", adapter.post_layer_norm),
        "QK-norm" if adapter.query_norm is not None else None,
        _mixture(adapter),
        f"scores capped ({adapter.score_softcap})" if adapter.score_softcap else None,
        f"logits capped ({adapter.softcap})" if adapter.softcap else None,
    ]
    return Described(
        family=adapter.family,
        patterns="recorded only" if adapter.attention_code == "own" else "edited",
        layout=tuple(word for word in layout if word is not None),
        only_with=tuple(f"{option}={handled}" for option, (handled, _) in adapter.refused.items()),
        classes=adapter.classes,
    )


def markdown() -> str:
    """Return the table of all families as docs/families.md shows it."""
    from innerworks.model.adapters import FAMILIES

    rows = [COLUMNS, ("---",) * len(COLUMNS), *(described(adapter).cells() for adapter in FAMILIES.values())]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def _positions(adapter: Adapter) -> str:
    rotated = _sometimes("rotary", lambda config: adapter.rotary(config, 0))
    if rotated is not None:
        return rotated
    if adapter.positions is not None:
        return "learned positions"
    return "slopes on the scores" if adapter.score_slopes else "no positions"


def _mixture(adapter: Adapter) -> str | None:
    if adapter.experts is None:
        return None
    return "mixture of experts" if adapter.mlp_out is None else "mixture of experts in some layers"


def _sometimes(word: str, is_so: Callable[[Any], bool]) -> str | None:
    """The word where it is always so, with the options that decide where it depends on them, None where it never is."""
    every, none = _Options(True), _Options(False)
    answers = {is_so(every), is_so(none)}
    if answers == {False}:
        return None
    asked = ", ".join(dict.fromkeys([*every.asked, *none.asked]))
    return word if answers == {True} else f"{word} ({asked})" if is_so(every) else f"{word} (without {asked})"


class _Options:
    """A configuration of which every option is on, or every one off, and which remembers what it was asked."""

    def __init__(self, on: bool) -> None:
        self.on, self.asked = on, list[str]()

    def __getattr__(self, option: str) -> Any:
        self.asked.append(option)
        return _Everywhere(self.on)


class _Everywhere:
    """An option, or a list with one entry per layer."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __bool__(self) -> bool:
        return self.on

    def __getitem__(self, layer: int) -> bool:
        return self.on
