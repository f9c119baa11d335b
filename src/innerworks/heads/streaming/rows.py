"""Do sinks matter for streaming? Losses of the ways of keeping part of a text, as findings with intervals over texts.

- `loss_without_sinks`: the window alone minus four sinks and the window; it must exceed a tenth of a nat.
- `closeness_with_sinks`: a tenth of a nat minus (four sinks and the window minus recomputation); an interval above zero says that
  four sinks are at most that much worse (a test of non-inferiority), at the positions at which recomputation was measured.
- `loss`: one row per way, target = the way.

Both tenths were fixed before any model was seen. Recomputation sees 256 to 271 tokens, the others 256: they are not flattered.
"""

from innerworks.findings import Finding
from innerworks.heads.streaming.losses import FOUR_SINKS, RECOMPUTATION, WINDOW_ONLY, StreamingLosses
from innerworks.stats import CONSTANTS, Array, estimate

FLOOR = 0.10  # nats by which a window without sinks must be worse
MARGIN = 0.10  # nats by which four sinks may be worse than recomputation and still count as close


def findings(losses: StreamingLosses) -> list[Finding]:
    """One row per way, and the two comparisons where their ways were measured; value, effect and null in nats."""
    rows = [_row(losses, "loss", losses.per_text(way), target=way) for way in losses.by_way]
    if {WINDOW_ONLY, FOUR_SINKS} <= losses.by_way.keys():
        rows.append(_against(losses, "loss_without_sinks", WINDOW_ONLY, FOUR_SINKS))
    if {FOUR_SINKS, RECOMPUTATION} <= losses.by_way.keys():
        rows.append(_against(losses, "closeness_with_sinks", FOUR_SINKS, RECOMPUTATION))
    return rows


def _against(losses: StreamingLosses, measure: str, way: str, other: str) -> Finding:
    shared = RECOMPUTATION if other == RECOMPUTATION else None
    own, null = losses.per_text(way, where=shared), losses.per_text(other, where=shared)
    close = measure == "closeness_with_sinks"
    effect = MARGIN - (own - null) if close else own - null
    return _row(losses, measure, own, effect=effect, null=float(null.mean()), null_kind=other, floor=0.0 if close else FLOOR)


def _row(
    losses: StreamingLosses,
    measure: str,
    value: Array,
    *,
    effect: Array | None = None,
    target: str | None = None,
    null: float = 0.0,
    null_kind: str = "none",
    floor: float = 0.0,
) -> Finding:
    found = estimate(value if effect is None else effect, losses.strata)
    length = len(losses.texts[0].tokens)
    said = f"cache of {losses.cache} tokens, texts of {length}"
    return Finding(
        chapter="heads",
        behaviour="streaming",
        site="model",
        target=target,
        measure=measure,
        material="text",
        value=float(value.mean()),
        unit="nats",
        effect=float(found.mean),
        effect_low=float(found.low),
        effect_high=float(found.high),
        n=found.n,
        df=found.df,
        null=null,
        null_kind=null_kind,
        floor=floor,
        p=None if effect is None else float(found.p_above(floor)),
        mde=None if effect is None else float(found.mde(floor)),
        note=said if found.n >= CONSTANTS.least_units else f"{said}; only {found.n} texts: not decided",
    )
