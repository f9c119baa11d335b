"""Do we score heads as TransformerLens does? Its `detect_head` and its OV eigenvalues, on the same weights and tokens.

    python benchmarks/heads_against_transformer_lens.py record ours.safetensors          with innerworks' Python
    python benchmarks/heads_against_transformer_lens.py compare ours.safetensors FOLDER  with TransformerLens' Python

The environments are those of `agree_with_transformer_lens.py`; FOLDER are the weights that `record` names at its end.

1. *Patterns*: 24 windows of built-in text and 24 generated repeats, 128 tokens each. `detect_head` scores `sum(A M) / sum(A)`:
   over all rows, whether or not they have anything to look at. Normalised by the rows that have (`* seq / rows`) it is a mean
   mass per such row, as ours is. It is asked twice: for our masks, given as its detection pattern, where both must agree to
   rounding; and for its own masks by name, which count column 0 and the first rows, too, and for induction the token itself.
2. *Eigenvalues*: `sum Re(lambda) / sum |lambda|` of its `FactoredMatrix` for `W_E W_V W_O W_U`, weights as they are, whole
   vocabulary; ours is first taken in that convention, then step by step as we define it (`heads/circuits/copying.py`).

Scores are averaged over windows. Printed: the largest difference, Spearman's rank correlation over all heads, and how many of
the ten highest heads are the same ten.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

WINDOWS, LENGTH = 24, 128
TOP = 10
NAMES = {"previous": "previous_token_head", "duplicate": "duplicate_token_head", "induction": "induction_head"}
MATERIALS = ("text", "random")


def main() -> None:
    """Run one half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(dest="half", required=True)
    for name in ("record", "compare"):
        half = halves.add_parser(name)
        half.add_argument("file", type=Path)
    halves.choices["compare"].add_argument("folder")
    options = parser.parse_args()
    if options.half == "record":
        record(options.file)
    else:
        compare(load_file(options.file), options.folder)


# --- innerworks' half ------------------------------------------------------------------------------------------------


def record(file: Path) -> None:
    """Keep tokens, masks, and what our instrument and our eigenvalues say of every head."""
    import innerworks as iw

    model = iw.load()
    kept = {}
    for material in MATERIALS:
        kept |= {f"{material} {name}": one for name, one in patterns(model, material).items()}
    kept |= {f"eigenvalues {name}": one for name, one in eigenvalues(model).items()}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, file)
    print(f"{file}: {WINDOWS} windows of each of {', '.join(MATERIALS)}; weights: {model.hf.config._name_or_path}")


def patterns(model, material):
    """The masses that a scan keeps, by our own instrument; and the masks they are masses on."""
    from innerworks.heads import masks
    from innerworks.heads.kinds import MEASURES
    from innerworks.heads.patterns import Patterns
    from innerworks.scan.engine import begin, observe_batch

    reading, batch = windows(model, material)
    instrument = Patterns()
    progress = begin(model, reading, [instrument])
    observe_batch(model, batch, [instrument], progress)
    state = progress.states[instrument.name]
    mass = (state["mass"] / state["rows"][:, :, None, None])[batch.units]  # window measure layer head
    first_rows = masks.positional_rows(batch.mask)
    back = torch.eye(LENGTH, dtype=torch.bool).roll(-1, dims=1).tril() & first_rows[:, :, None]
    targets = {"previous": back, **{name: masks.TARGETS[name](batch) for name in ("duplicate", "induction")}}
    measures = {"previous": "offset_1", "duplicate": "duplicate", "induction": "induction"}
    found = {f"{name} mask": target.float() for name, target in targets.items()}
    return {"tokens": batch.tokens, **found, **{n: mass[:, MEASURES.index(measures[n])] for n in measures}}


def windows(model, material):
    """The first windows of full length of different documents, as one batch in which each is its own unit."""
    import innerworks as iw
    from innerworks.text import Reading, read
    from innerworks.text.reading import batch_of

    corpus = iw.Corpus.open("builtin")
    whole = read(corpus, model.tokenizer, vocab=model.anatomy.vocab, max_positions=model.anatomy.max_positions, window=LENGTH)
    chosen = {}
    for window in whole.windows:
        if whole.units[window.unit].material == material and len(window.tokens) == LENGTH and has_repeat(window.tokens):
            chosen.setdefault(window.unit, window)
    some = list(chosen.values())[:: max(1, len(chosen) // WINDOWS)][:WINDOWS]
    return Reading(units=whole.units, windows=tuple(some)), batch_of(some, material, material, "discovery")


def has_repeat(tokens) -> bool:
    """Is there anything for a duplicate-token or an induction head to look at?"""
    return len(set(tokens[1:-1])) < len(tokens[1:-1])


def eigenvalues(model):
    """Our eigenvalue score of every head in TransformerLens' convention, and on the way to ours."""
    from innerworks.heads.circuits.copying import Bridge, bridge, eigenvalue
    from innerworks.heads.circuits.embedding import as_read, blocks, unembedding
    from innerworks.heads.circuits.nulls import Circuits, own

    weights, layers = model.weights, range(model.anatomy.layers)
    as_is = Circuits(
        value=torch.cat([weights.W_V(layer) for layer in layers]),
        output=torch.cat([weights.W_O(layer) for layer in layers]),
        layers=len(layers),
    )
    folded = Circuits.of(model)
    vocabulary = list(blocks(model, torch.arange(model.anatomy.vocab)))
    nothing = torch.zeros(model.anatomy.d_model)

    def over(reads, columns):
        both = [sum((columns(ids) @ reads(one)[which] for ids, one in vocabulary), torch.zeros(())) for which in (0, 1)]
        return Bridge(first=both[0], later=both[1], first_mean=nothing, later_mean=nothing)

    def raw(one):
        return one.raw, one.raw

    def scaled(one):
        return (as_read(model, one.raw),) * 2

    def effective(one):
        return as_read(model, one.raw), as_read(model, one.whole)

    def gained(ids):
        return unembedding(model, ids)

    steps = {
        "1 weights as they are": (as_is, over(raw, lambda ids: weights.W_U()[:, ids])),
        "2 gains of the norms folded in": (folded, over(raw, gained)),
        "3 and rows divided by the norm's scale": (folded, over(scaled, gained)),
        "4 and the effective embedding": (folded, over(effective, gained)),
        "5 and the mean row off (ours)": (folded, bridge(model)),
    }
    shape = (model.anatomy.layers, model.anatomy.heads)
    return {name: torch.from_numpy(eigenvalue(*step, own(step[0]))[0]).reshape(shape) for name, step in steps.items()}


# --- TransformerLens' half -------------------------------------------------------------------------------------------


def compare(ours: dict, folder: str) -> None:
    """Print how far apart the scores are."""
    from agree_with_transformer_lens import boot

    bridge = boot(folder)
    print("| score | ours against | largest difference | Spearman | same of the ten highest |\n|---|---|---|---|---|")
    with torch.no_grad():
        for material in MATERIALS:
            given = {name.split(" ", 1)[1]: one for name, one in ours.items() if name.startswith(material)}
            compare_patterns(bridge, material, given)
        theirs = copying(bridge)
    for name, one in ours.items():
        if name.startswith("eigenvalues"):
            row("OV eigenvalues", f"theirs; {name.split(' ', 2)[2]}", one, theirs)


def compare_patterns(bridge, material: str, ours: dict) -> None:
    """Ask `detect_head` for our masks and for its own, window by window."""
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    for number, tokens in enumerate(ours["tokens"]):
        asked = SimpleNamespace(cfg=bridge.cfg, to_tokens=lambda text, ids=tokens[None]: ids)  # our ids, whatever the text
        _, cache = bridge.run_with_cache(tokens[None], remove_batch_dim=True)
        for name in NAMES:
            for way, (score, rows) in ways(asked, name, ours[f"{name} mask"][number], tokens, cache).items():
                found.setdefault((name, way), []).append(score * len(tokens) / rows if rows else score)
    for (name, way), scores in found.items():
        row(f"{name}, {material}", way, ours[name].mean(dim=0), torch.stack(scores).mean(dim=0))


def ways(asked, name: str, mask, tokens, cache) -> dict:
    """Scores of all heads with the rows to normalise by; 0 for none: as `detect_head` gives it."""
    from transformer_lens import head_detector

    masks = {"previous": head_detector.get_previous_token_head_detection_pattern}
    masks["duplicate"] = head_detector.get_duplicate_token_head_detection_pattern
    masks["induction"] = head_detector.get_induction_head_detection_pattern
    theirs = masks[name](tokens[None])
    by_mask = head_detector.detect_head(asked, "", mask, cache=cache)
    by_name = head_detector.detect_head(asked, "", NAMES[name], cache=cache)
    return {
        "detect_head of our masks, normalised": (by_mask, int(mask.any(dim=-1).sum())),
        "detect_head by name, normalised": (by_name, int(theirs.any(dim=-1).sum())),
        "detect_head by name, as it is": (by_name, 0),
    }


def copying(bridge) -> torch.Tensor:
    """`sum Re / sum |.|` of the eigenvalues of their factored `W_E OV W_U`, layer by layer."""
    values = [(bridge.W_E @ bridge.OV[layer] @ bridge.W_U).eigenvalues for layer in range(bridge.cfg.n_layers)]
    return torch.stack([one.real.sum(dim=-1) / one.abs().sum(dim=-1) for one in values])


def row(score: str, against: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Print one line of the table."""
    ours, theirs = ours.double().flatten(), theirs.double().flatten()
    ranks = [one.argsort().argsort().double() for one in (ours, theirs)]
    spearman = torch.corrcoef(torch.stack(ranks))[0, 1]
    same = set(ours.topk(TOP).indices.tolist()) & set(theirs.topk(TOP).indices.tolist())
    print(f"| {score} | {against} | {(ours - theirs).abs().max():.1e} | {spearman:.4f} | {len(same)} |", flush=True)


if __name__ == "__main__":
    main()
