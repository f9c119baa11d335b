"""Invented findings of every kind of head, as the studies write them: for what shows them."""

from dataclasses import replace
from typing import Any

import numpy as np

from innerworks.findings import Finding

RELATIONS = ("nsubj", "nsubj<", "det<", "obj", "amod<", "case")


def row(behaviour: str, site: str, measure: str, effect: float, **changes: Any) -> Finding:
    """One row; an interval of a tenth of the effect, above the floor if the effect is."""
    layer, _, index = site.removeprefix("L").partition("H")
    floor = changes.get("floor", 0.1)
    passes = effect > floor
    values: dict[str, Any] = dict(
        chapter="heads",
        behaviour=behaviour,
        site=site,
        layer=int(layer) if layer.isdigit() else None,
        index=int(index) if index else None,
        measure=measure,
        material="text",
        value=effect + 0.02,
        unit="probability",
        effect=effect,
        effect_low=effect - abs(effect) / 10,
        effect_high=effect + abs(effect) / 10,
        n=40,
        null=0.02,
        null_kind="pattern swap",
        floor=floor,
        p=1e-9 if passes else 0.9,
        mde=floor * 1.3,
        q=1e-8 if passes else None,
    )
    return Finding(**{**values, **changes})


def by_weights(behaviour: str, site: str, measure: str, effect: float, **changes: Any) -> Finding:
    """A score of weights: no sample, so its interval is the number."""
    exact = {"effect_low": effect, "effect_high": effect, "n": 1, "material": "weights", "null_kind": "mismatched parts"}
    note = "weights are no sample: the interval is the number; 6000 mismatched parts"
    return row(behaviour, site, measure, effect, **{"unit": "score", "note": note, **exact, **changes})


def copying(labels: dict[str, str], sites: list[str]) -> list[Finding]:
    """Copying and anti-copying: two measures decide, two stand beside them. labels: site -> behaviour."""
    rows = []
    for site in sites:
        for behaviour in ("copying", "anti_copying"):
            has = labels.get(site) == behaviour
            rung = {"rung": int(has), "q": 0.003 if has else 1.0, "p": 0.0 if has else 1.0}
            weights = 0.8 if has else -0.1
            context = {"unit": "logits", "floor": 0.05, "null_kind": "token swap"}
            rows.append(by_weights(behaviour, site, "eigenvalue", weights, **rung))
            rows.append(row(behaviour, site, "direct_effect", 0.4 if has else 0.0, **context, **rung))
            rows.append(by_weights(behaviour, site, "top_k", 0.6 if has else 0.0, unit="share of tokens", **rung))
            rows.append(
                row(behaviour, site, "direct_effect", 0.3 if has else 0.0, **context, **{**rung, "q": None}, material="random")
            )
    return rows


def syntactic(best: dict[str, str], sites: list[str]) -> list[Finding]:
    """One relation each; `best` says which head finds which relation."""
    rows = []
    for relation in RELATIONS:
        for i, site in enumerate(sites):
            has = best.get(relation) == site
            effect = 0.35 if has else -0.2 + 0.002 * i
            shape = {"unit": "accuracy", "null_kind": "best fixed offset", "note": "1 word back", "rung": int(has)}
            rows.append(row(f"syntactic:{relation}", site, "attention", effect, **shape))
    return rows


def domains(best: dict[str, str], sites: list[str]) -> list[Finding]:
    """What losing a head costs one domain beyond the others."""
    rows = []
    for domain in ("python", "french"):
        for site in sites:
            has = best.get(domain) == site
            shape = {"unit": "nats", "null_kind": "other domains", "floor": 0.01, "ablation": "mean", "rung": 2 * int(has)}
            rows.append(row(f"domain:{domain}", site, "harm_contrast", 0.06 if has else 0.001, **shape))
            if has:
                rows.append(row(f"domain:{domain}", site, "harm", 0.06, **{**shape, "null_kind": "control heads", "rung": 0}))
    return rows


def together(receiver: str, sender: str, *, rung: int = 1) -> list[Finding]:
    """An induction head that needs another in its keys; by weights, a few pairs that compose."""
    shape = {
        "target": sender,
        "material": "random",
        "rung": rung,
        "floor": 0.05,
        "ablation": "mean",
        "null_kind": "control heads",
    }
    keys = row("induction", receiver, "k_composition", 0.6, **shape)
    share = replace(keys, measure="k_composition_share", effect=0.8, effect_low=0.7, effect_high=0.9, floor=0.5, unit="share")
    weights = [
        by_weights("composition:k", receiver, "composition", 0.3 - 0.05 * i, target=site, floor=0.04, q=0.01)
        for i, site in enumerate((sender, "L0H0", "L0H1"))
    ]
    return [keys, share, *weights]


def facts(layers: int) -> list[Finding]:
    """Layers, and the model as a whole."""
    massive = [
        row("massive_activation", f"L{i}", "massive_activation", 300.0 * i, unit="times the median", floor=100.0)
        for i in range(layers)
    ]
    streams = row("streaming", "model", "loss_without_sinks", 2.5, unit="nats", floor=0.1)
    return [*massive, streams]


def every_kind(layers: int, heads: int) -> list[Finding]:
    """All of these for a small model; L2H1 copies, L1H0 follows two relations, L2H0 serves Python, L2H1 needs L0H3."""
    sites = [f"L{layer}H{head}" for layer, head in np.ndindex(layers, heads)]
    return [
        *copying({"L2H1": "copying", "L2H3": "anti_copying"}, sites),
        *[by_weights("successor", site, "succession", 0.01, unit="share of ordinals", floor=0.25, q=1.0) for site in sites],
        *[row("copy_suppression", site, "attention", 0.2 if site == "L2H3" else 0.0, rung=int(site == "L2H3")) for site in sites],
        row("copy_suppression", "L2H3", "calibration", 0.02, unit="nats", floor=0.01, ablation="mean"),
        row("copy_suppression", "L2H3", "self_repair", 0.4, unit="logits", target="L2H0", ablation="mean"),
        *syntactic({"nsubj": "L1H0", "det<": "L1H0", "amod<": "L0H2"}, sites),
        *domains({"python": "L2H0"}, sites),
        *together("L2H1", "L0H3", rung=3),
        row("attention_sink", "L2H1", "sink_contrast", 0.3, target="induction"),
        *facts(layers),
    ]
