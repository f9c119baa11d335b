"""What does one exact patch cost, in plain forwards of the same model on the same tokens?

1. A plain Hugging Face forward with its own fast attention and all logits is the unit.
2. One head is ablated at a time (zero), resumed from a clean run at its layer: with the logits of the last token, with all
   logits, and at the last position only (`suffix=True`); averaged over all layers.
3. Each is alternated with the plain forward in one process; medians of the ratios are printed, beside `run_each`, which
   computes all heads of a layer together.

python benchmarks/patching.py [--model NAME] [--pairs 9] [--threads 2]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

import innerworks as iw
from innerworks.model import Model, Run, ablate

BATCH, LENGTH = 8, 16
BUDGET = {"last": 0.5, "all": 0.7, "last position": 0.15}


def main() -> None:
    """Print the table of ratios; exit code 1 where a budget is exceeded."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="smollm2-135m-instruct")
    options.add_argument("--pairs", type=int, default=9)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    model = iw.load(asked.model)
    tokens = torch.randint(model.anatomy.vocab, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    clean = model.run(tokens, keep="resume", logits="none")
    if not asked.json:
        print(heading(model, asked.pairs, asked.threads), flush=True)
    result: dict[str, dict[str, float | None]] = {}
    for name, way in ways(model, clean).items():
        result[name] = {"forwards": round(measure(model, tokens, way, pairs=asked.pairs), 3), "budget": BUDGET.get(name)}
        if not asked.json:
            print(line(name, result[name]), flush=True)
    if asked.json:
        print(json.dumps(result))
    raise SystemExit(any(one["budget"] is not None and one["forwards"] > one["budget"] for one in result.values()))


def ways(model: Model, clean: Run) -> dict[str, Callable[[int], int]]:
    """Ways of ablating heads of a layer; each returns how many ablations it made."""
    tokens, last = clean.tokens, [LENGTH - 1]

    def one(layer: int, logits: str, *, positions: list[int] | None = None) -> int:
        edit = ablate(f"L{layer}H0", "zero", positions=positions)
        model.run(tokens, edit=edit, resume=clean, logits=logits, suffix=positions is not None)
        return 1

    def together(layer: int, *, positions: list[int] | None = None) -> int:
        edits = [ablate(f"L{layer}H{head}", "zero", positions=positions) for head in range(model.anatomy.heads)]
        return sum(1 for _ in model.run_each(edits, resume=clean, suffix=positions is not None, rows=BATCH * len(edits)))

    return {
        "last": lambda layer: one(layer, "last"),
        "all": lambda layer: one(layer, "all"),
        "last position": lambda layer: one(layer, "last", positions=last),
        "last, the heads of a layer together": lambda layer: together(layer),
        "last position, the heads of a layer together": lambda layer: together(layer, positions=last),
    }


def measure(model: Model, tokens: torch.Tensor, way: Callable[[int], int], *, pairs: int) -> float:
    """Median over pairs of (time of one ablation, averaged over layers) / (time of a plain forward)."""
    layers = range(model.anatomy.layers)
    found = []
    for _ in range(pairs + 1):
        plain = statistics.median(seconds(lambda: forward(model, tokens)) for _ in range(3))
        began = time.perf_counter()
        made = sum(way(layer) for layer in layers)
        found.append((time.perf_counter() - began) / made / plain)
    return statistics.median(found[1:])  # the first warms up


def forward(model: Model, tokens: torch.Tensor) -> None:
    """The unit: Hugging Face's own forward, logits of all positions."""
    with torch.no_grad():
        model.hf(input_ids=tokens, use_cache=False)


def seconds(work: Callable[[], None]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def heading(model: Model, pairs: int, threads: int) -> str:
    """What the numbers are."""
    return (
        f"One exact ablation of a head of {model.name}, {BATCH} x {LENGTH} tokens, in plain forwards\n"
        f"(median of {pairs} alternated pairs, averaged over {model.anatomy.layers} layers, {threads} threads)"
    )


def line(name: str, one: dict[str, float | None]) -> str:
    """One ratio in words."""
    return f"  {name:<42} {one['forwards']:.3f}" + (f"  (at most {one['budget']})" if one["budget"] else "")


if __name__ == "__main__":
    main()
