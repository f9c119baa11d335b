"""The rules by which findings answer a clause, the same for every claim.

*Some X exist*. Yes: a label at the asked rung. No, which needs power: over all M components that were measured, the largest
upper bound `effect + t(1 - .05/M) se` lies below twice the floor on one of the kind's materials, at least 90 % of them would
have shown an effect of that size, and the kind's phantom is found by this version. A causal clause asks the same of harm.
*More than*. Yes: the interval lies above the floor; no: below it; else open. *A share*. Yes: the interval lies within the range;
no: outside; else open.
Of neurons only candidates have rows: there the row `ceiling` of a kind holds that upper bound, and the power, over all of them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from innerworks.claims.claim import Answer, Clause, Evidence
from innerworks.stats import CONSTANTS

if TYPE_CHECKING:
    import polars

HARMS = ("harm", "joint_harm", "marginal_harm")
CEILING = "ceiling"  # a row that bounds every neuron, candidate or not
WEIGHTS = "mismatched parts"  # the null of what is read off weights, which have no units
SHOWN = 4  # sites named in a sentence
POWERED = 0.90  # share of components that must have had the power to show twice the floor
#: kinds whose phantoms are found, 30 draws of two architectures each
PLANTED = frozenset(
    {"previous_token", "current_token", "offset_2", "offset_3", "first_token", "punctuation"}
    | {"duplicate_token", "induction", "subword_joiner"}
    | {"copying", "anti_copying", "copy_suppression", "successor"}
)


def some(says: str, behaviours: str | Sequence[str], *, rung: int = 1, measure: str = "attention") -> Clause:
    """Are there parts of a kind (or of any of several), at this rung?

    measure: that of the label's rows. A "no" is only given for kinds that this version finds where they are planted.
    """
    kinds = (behaviours,) if isinstance(behaviours, str) else tuple(behaviours)
    phantom = set(kinds) <= PLANTED

    def ask(findings: "polars.DataFrame") -> Evidence:
        import polars as pl

        mine = findings.filter(_of(kinds) & (pl.col("measure") == measure))
        labels = mine.filter(pl.col("rung") >= rung)
        if not labels.is_empty():
            return _found(says, labels, kinds, rung)
        if mine.is_empty():
            return Evidence(clause=says, answer="open", says="this atlas holds no such measurement")
        if rung == 1:
            ceilings = findings.filter(_of(kinds) & (pl.col("measure") == CEILING))
            return _absent(says, mine if ceilings.is_empty() else ceilings, phantom)
        if rung == 3:
            return _not_selective(says, mine, findings.filter(_of(kinds) & (pl.col("measure") == "collateral")))
        return _no_harm(says, mine, findings.filter(_of(kinds) & pl.col("measure").is_in(HARMS)), phantom)

    return Clause(says=says, ask=ask)


def counted(says: str, behaviour: str, *, measure: str, count: str) -> Clause:
    """Are there parts of a kind, where all were looked at and counted: some, or for certain none?

    count: the measure of the model's share of parts that look so. Where it is zero, each of them was seen to be otherwise; that
    is no estimate, and takes no power.
    """
    found = some(says, behaviour, measure=measure)

    def ask(findings: "polars.DataFrame") -> Evidence:
        import polars as pl

        shares = findings.filter(_of((behaviour,)) & (pl.col("measure") == count) & (pl.col("site") == "model"))
        if shares.is_empty() or shares["value"][0] > 0:
            return found.ask(findings)
        row = shares.row(0, named=True)
        return _evidence(says, "no", str(row["note"]), row, ())

    return Clause(says=says, ask=ask)


def more(
    says: str,
    behaviour: str,
    measure: str | Sequence[str],
    *,
    at_least: int = 1,
    which: Callable[["polars.DataFrame"], "polars.DataFrame"] | None = None,
    among: str | None = None,
    denies: bool = True,
) -> Clause:
    """Does an effect exceed its floor, for at least so many rows of a measure (or of any of several, of one q)?

    Yes: those above the floor with q <= .05 (p, where no row of the measure has a q). No: every interval lies below the floor.
    Rows of fewer than 12 units answer neither; nor do rows without any p.

    among: only the pairs of site and target that exceed the floor of this other measure, too. denies: False where only some of
    the pairs that there are were asked, so that nothing follows from none of them being found.
    """

    def ask(findings: "polars.DataFrame") -> Evidence:
        import polars as pl

        of_kind = findings.filter(_of((behaviour,)))
        rows = of_kind.filter(pl.col("measure").is_in([measure] if isinstance(measure, str) else list(measure)))
        passing = _passing(rows)
        if among is not None:
            other = of_kind.filter(pl.col("measure") == among)
            rows = rows.join(other.filter(_passing(other)), on=["site", "target"], how="semi")
        rows = rows if which is None else which(rows)
        if rows.is_empty():
            return Evidence(clause=says, answer="open", says="this atlas holds no such measurement of what it is asked of")
        above, below = rows.filter(passing), rows.filter(_enough() & (pl.col("effect_high") < pl.col("floor")))
        best = rows.sort("effect", descending=True).row(0, named=True)
        no = denies and len(rows) - len(below) < at_least
        answer: Answer = "yes" if len(above) >= at_least else "no" if no else "open"
        sites = tuple(above.sort("effect", descending=True)["site"].unique(maintain_order=True).head(SHOWN))
        return _evidence(says, answer, _numbers(best), best, sites)

    return Clause(says=says, ask=ask)


def both(says: str, first: str, second: str, *, rung: int = 1) -> Clause:
    """Is some part of the first kind, at this rung, of the second kind, too (at any)?"""

    def ask(findings: "polars.DataFrame") -> Evidence:
        import polars as pl

        if findings.filter(_of((second,))).is_empty() or findings.filter(_of((first,))).is_empty():
            return Evidence(clause=says, answer="open", says="this atlas holds no such measurement")
        labelled = [
            set(findings.filter(_of((kind,)) & (pl.col("rung") >= at))["site"]) for kind, at in ((first, rung), (second, 1))
        ]
        shared = sorted(labelled[0] & labelled[1])
        if not shared:
            return Evidence(clause=says, answer="open", says=f"no head is labelled {first} and {second} at once")
        return Evidence(clause=says, answer="yes", says=f"{len(shared)}: {_names(shared)}", sites=tuple(shared[:SHOWN]))

    return Clause(says=says, ask=ask)


def share(
    says: str,
    behaviour: str,
    measure: str,
    *,
    least: float = 0.0,
    most: float = 1.0,
    without: str = "this atlas holds no such share",
) -> Clause:
    """Does a share lie between two bounds? Yes: its interval does; no: its interval lies outside; else open.

    without: what is said where there is no such row.
    """

    def ask(findings: "polars.DataFrame") -> Evidence:
        import polars as pl

        rows = findings.filter(_of((behaviour,)) & (pl.col("measure") == measure) & (pl.col("n") >= CONSTANTS.least_units))
        if rows.is_empty():
            return Evidence(clause=says, answer="open", says=without)
        row = rows.row(0, named=True)
        low, high = row["effect_low"], row["effect_high"]
        inside, outside = least <= low and high <= most, high < least or low > most
        answer: Answer = "yes" if inside else "no" if outside else "open"
        return _evidence(says, answer, f"{row['effect']:.1%} [{low:.1%}, {high:.1%}]", row, ())

    return Clause(says=says, ask=ask)


# --- how a rule comes to its answer ------------------------------------------------------------------------------


def _passing(rows: "polars.DataFrame") -> "polars.Expr":
    """Which rows of one measure exceed their floor for sure: by q where any of them has one, since the others were not picked."""
    import polars as pl

    sure = pl.col("q" if rows["q"].is_not_null().any() else "p") <= CONSTANTS.level
    return _enough() & sure & (pl.col("effect") > pl.col("floor"))


def _enough() -> "polars.Expr":
    """Units enough to decide; weights have none."""
    import polars as pl

    return (pl.col("n") >= CONSTANTS.least_units) | (pl.col("null_kind") == WEIGHTS)


def _of(kinds: Sequence[str]) -> "polars.Expr":
    """Rows of these kinds; `syntactic:` and `domain:` stand for all that begin so."""
    import polars as pl

    exact = [kind for kind in kinds if not kind.endswith(":")]
    match = pl.col("behaviour").is_in(exact)
    for family in (kind for kind in kinds if kind.endswith(":")):
        match = match | pl.col("behaviour").str.starts_with(family)
    return match


def _found(says: str, labels: "polars.DataFrame", kinds: Sequence[str], rung: int) -> Evidence:
    ordered = labels.sort("rung", "effect", descending=True)
    best = ordered.row(0, named=True)
    sites = list(ordered["site"].unique(maintain_order=True))
    counts = {kind: labels.filter(_of((kind,)))["site"].n_unique() for kind in kinds}
    told = ", ".join(f"{count} {kind.replace('_', ' ').rstrip(':')}" for kind, count in counts.items() if count)
    return _evidence(says, "yes", f"{told} at rung {rung} or above: {_names(sites)}", best, tuple(sites[:SHOWN]))


def _absent(says: str, rows: "polars.DataFrame", phantom: bool) -> Evidence:
    """No label: is that because there is none, or because it could not be seen?"""
    import polars as pl

    best = rows.sort("effect", descending=True).row(0, named=True)
    reasons = []
    for kind in rows["behaviour"].unique():
        of_kind = rows.filter(pl.col("behaviour") == kind)
        verdicts = [_excluded(of_kind.filter(pl.col("material") == material)) for material in of_kind["material"].unique()]
        reasons += [] if any(excluded for excluded, _ in verdicts) else [min(bound for _, bound in verdicts)]
    if not reasons and phantom:
        return _evidence(says, "no", f"none: the largest effect is {best['effect']:.3f}, floor {best['floor']:g}", best, ())
    if not reasons:
        why = "none found, but this kind's phantoms have not had their 60 draws"
    elif (bound := max(reasons)) == float("inf"):
        why = f"none found: the largest effect is {best['effect']:.3f}; how small a one would have been seen is not known"
    elif best["unit"].startswith("share") and bound > 1:
        why = "underpowered: no effect is excluded"
    else:
        why = f"underpowered: effects up to {bound:.3f} not excluded"
    return _evidence(says, "open", why, best, ())


def _excluded(rows: "polars.DataFrame") -> tuple[bool, float]:
    """Is an effect of twice the floor excluded for every component? And the largest that is not.

    Weights are no sample: there the number itself is the bound.
    """
    rows = rows.drop_nulls(["df", "effect", "effect_high"])
    weights = not rows.is_empty() and bool((rows["null_kind"] == WEIGHTS).all())
    if rows.is_empty() or not weights and int(rows["n"].min() or 0) < CONSTANTS.least_units:  # pyright: ignore[reportArgumentType]
        return False, float("inf")
    if bool((rows["measure"] == CEILING).all()):
        bound, floors = rows["effect_high"].to_numpy(), rows["floor"].to_numpy()
        powered = rows["mde"].fill_null(float("inf")).to_numpy() <= 2 * floors
        return bool(((bound < 2 * floors) & powered).all()), float(bound.max())
    effect, high, df = (rows[name].to_numpy().astype(float) for name in ("effect", "effect_high", "df"))
    se = np.zeros_like(effect) if weights else (high - effect) / stdtrit(df, 1 - CONSTANTS.level / 2)
    bound = float(np.max(effect + stdtrit(df, 1 - CONSTANTS.level / len(rows)) * se))
    floor = float(rows["floor"][0])
    powered = float((rows["mde"].fill_null(float("inf")).to_numpy() <= 2 * floor).mean())
    return bound < 2 * floor and powered >= POWERED, bound


def _no_harm(says: str, labels: "polars.DataFrame", harms: "polars.DataFrame", phantom: bool) -> Evidence:
    import polars as pl

    seen = labels.filter(pl.col("rung") >= 1)["site"].unique()
    if len(seen) == 0:
        absent = _absent(says, labels, phantom)
        return (
            absent
            if absent.answer == "no"
            else Evidence(clause=says, answer="open", says=f"no {_noun(labels)} to ablate was found")
        )
    tried, jointly = (harms.filter(pl.col("measure") == one) for one in ("harm", "joint_harm"))
    if tried.is_empty():
        return Evidence(clause=says, answer="open", says=f"no {_noun(labels)} of this kind was ablated at this depth")
    best = tried.sort("effect", descending=True).row(0, named=True)
    bounds = [_excluded(harms.filter(pl.col("measure") == measure)) for measure in harms["measure"].unique()]
    excluded, bound = all(one for one, _ in bounds), max(bound for _, bound in bounds)
    harmless = bool((harms["null_kind"] == "none").all())  # else some harm is shown, and only controls do as much
    together = {site for target in jointly["target"].drop_nulls() for site in target.split(", ")}
    all_tried = set(seen) <= set(tried["site"]) and (len(seen) == 1 or set(seen) <= together)
    if excluded and harmless and all_tried and phantom:
        return _evidence(says, "no", f"none: the largest harm is {best['effect']:.3f}", best, ())
    tried_jointly = len(together & set(seen))
    few = "" if all_tried else f"{tried['site'].n_unique()} of {len(seen)} labels ablated alone, {tried_jointly} jointly; "
    why = f"harm up to {bound:.3f} not excluded" if harmless else f"harm is shown, and control {_noun(labels)}s do as much"
    return _evidence(says, "open", f"{few}{why}", best, ())


def _not_selective(says: str, labels: "polars.DataFrame", collateral: "polars.DataFrame") -> Evidence:
    """Of the necessary parts, none passed: did all of them fail, or was it not decided?"""
    import polars as pl

    place = ["behaviour", "site", "target"]  # a group's site is the model
    necessary = set(labels.filter(pl.col("rung") >= 2).select(place).iter_rows())
    failed = set(collateral.filter(pl.col("note").str.starts_with("fail")).select(place).iter_rows())
    if not necessary:
        return Evidence(clause=says, answer="open", says=f"no {_noun(labels)} of this kind is shown to be necessary")
    if necessary <= failed:
        return Evidence(clause=says, answer="no", says=f"all {len(necessary)} that are necessary harm other text, too")
    return Evidence(clause=says, answer="open", says="harm elsewhere is not decided")


def _evidence(clause: str, answer: Answer, says: str, row: dict[str, object], sites: tuple[str, ...]) -> Evidence:
    number = {name: row[column] for name, column in _COLUMNS.items()}
    return Evidence(clause=clause, answer=answer, says=says, sites=sites, **number)  # pyright: ignore[reportArgumentType]


_COLUMNS = {
    "number": "effect",
    "low": "effect_low",
    "high": "effect_high",
    "unit": "unit",
    "floor": "floor",
    "mde": "mde",
    "n": "n",
}


def _numbers(row: dict[str, object]) -> str:
    interval = f"{row['effect']:.3f} [{row['effect_low']:.3f}, {row['effect_high']:.3f}]"
    return f"{row['site']}: {interval} {row['unit']}, floor {row['floor']:g}"


def _noun(rows: "polars.DataFrame") -> str:
    """What the parts of these rows are, in one word."""
    return {"heads": "head", "neurons": "neuron"}.get(rows["chapter"][0], "part")


def _names(sites: Sequence[str]) -> str:
    more = f" and {len(sites) - SHOWN} more" if len(sites) > SHOWN else ""
    return ", ".join(sites[:SHOWN]) + more
