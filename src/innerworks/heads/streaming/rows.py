"""Do sinks matter for streaming? Losses of the ways of keeping part of a text, as findings with intervals over texts.

- `loss_without_sinks`: the window alone minus four sinks and the window; it must exceed a tenth of a nat.
- `closeness_with_sinks`: a tenth of a nat minus (four sinks and the window minus recomputation); an interval above zero says that
  four sinks are at most that much worse (a test of non-inferiority), at the positions at which recomputation was measured.
- `loss`: one row per way, target = the way.
- `generation` (of `generation.py`): half a nat minus the divergence of text generated with four sinks from what the model would
  say with all of it in view; an interval above zero says that generation goes on past the window. Half a nat multiplies the
  perplexity by 1.65, and has to hold what forgetting costs, too.
- `generation_without_sinks`: that divergence with the window alone minus that with four sinks; it must exceed a tenth of a nat.
- `repetition`: the share of generated tokens that complete three in a row already generated, target = the way.

All of these were fixed before any model was seen. Recomputation sees 256 to 271 tokens, the others 256: they are not flattered.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from innerworks.findings import Finding
from innerworks.heads.streaming.losses import FOUR_SINKS, RECOMPUTATION, WINDOW_ONLY, StreamingLosses
from innerworks.stats import CONSTANTS, Array, estimate

FLOOR = 0.10  # nats by which a window without sinks must be worse
MARGIN = 0.10  # nats by which four sinks may be worse than recomputation and still count as close
GENERATION_MARGIN = (
    0.50  # nats by which what is generated with four sinks may stray from what the whole text would have made of it
)


def findings(losses: StreamingLosses) -> list[Finding]:
    """One row per way, and the two comparisons where their ways were measured; value, effect and null in nats."""
    row = partial(_row, losses.strata, f"cache of {losses.cache} tokens, texts of {len(losses.texts[0].tokens)}")
    rows = [row("loss", losses.per_text(way), target=way) for way in losses.by_way]
    if {WINDOW_ONLY, FOUR_SINKS} <= losses.by_way.keys():
        own, null = losses.per_text(WINDOW_ONLY), losses.per_text(FOUR_SINKS)
        rows.append(row("loss_without_sinks", own, own - null, null=float(null.mean()), null_kind=FOUR_SINKS, floor=FLOOR))
    if {FOUR_SINKS, RECOMPUTATION} <= losses.by_way.keys():
        own, null = (losses.per_text(way, where=RECOMPUTATION) for way in (FOUR_SINKS, RECOMPUTATION))
        close = MARGIN - (own - null)
        rows.append(row("closeness_with_sinks", own, close, null=float(null.mean()), null_kind=RECOMPUTATION, floor=0.0))
    return rows


def generation_findings(
    divergence: Mapping[str, Array], repeats: Mapping[str, Array], strata: Sequence[str], *, cache: int
) -> list[Finding]:
    """Does generation go on past the window? Arrays are `[prompt, token]`, by way; the unit is the prompt."""
    length = divergence[FOUR_SINKS].shape[1]
    row = partial(_row, list(strata), f"cache of {cache} tokens, {length} generated behind it at temperature 1")
    sinks, window = divergence[FOUR_SINKS].mean(axis=1), divergence[WINDOW_ONLY].mean(axis=1)
    apart = {"null": float(sinks.mean()), "null_kind": FOUR_SINKS, "floor": FLOOR}
    return [
        row("generation", sinks, GENERATION_MARGIN - sinks, null_kind="a margin of half a nat"),
        row("generation_without_sinks", window, window - sinks, **apart),
        *(row("repetition", one.mean(axis=1), target=way, unit="share of tokens") for way, one in repeats.items()),
    ]


def _row(
    strata: list[str],
    said: str,
    measure: str,
    value: Array,
    effect: Array | None = None,
    *,
    target: str | None = None,
    unit: str = "nats",
    null: float = 0.0,
    null_kind: str = "none",
    floor: float = 0.0,
) -> Finding:
    found = estimate(value if effect is None else effect, strata)
    return Finding(
        chapter="heads",
        behaviour="streaming",
        site="model",
        target=target,
        measure=measure,
        material="text",
        value=float(value.mean()),
        unit=unit,
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
