"""Do we record what TransformerLens records, and does an edit do the same? Two halves, one per environment, on the same weights.

    pip install -c FILE transformer-lens==4.3.0    in an environment of its own; FILE says torch==2.13.0 (the CPU build)

    python benchmarks/agree_with_transformer_lens.py record ours.safetensors          with innerworks' Python
    python benchmarks/agree_with_transformer_lens.py compare ours.safetensors FOLDER  with TransformerLens' Python
    python benchmarks/agree_with_transformer_lens.py time FOLDER                      with TransformerLens' Python

`record` runs the default specimen on the beginnings of built-in documents and keeps every activation under its TransformerLens
name, and the logits after some edits. `compare` loads FOLDER, the weights that `record` names at its end, into TransformerLens,
runs the same token ids and prints the largest differences per hook. `time` says how many plain forwards of Hugging Face one
ablation of a head by TransformerLens' hooks takes.

Where the two differ by convention: k and v are one per query head here and one per key head there (theirs are repeated);
of attention scores only those of keys that a query may see are compared (the others hold the lowest number in both).
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

DOCUMENTS, LENGTH = ("news", "fiction", "french", "python"), 32
BATCH = (8, 16)  # what is timed
WARM_UP = 3  # pairs
EDITS = {  # name -> the hook, and the index of what is set to zero at every position
    "head 0 of layer 16": ("blocks.16.attn.hook_z", (slice(None), slice(None), 0)),
    "pattern of head 6 of layer 18": ("blocks.18.attn.hook_pattern", (slice(None), 6)),
    "queries of head 3 of layer 17": ("blocks.17.attn.hook_rot_q", (slice(None), slice(None), 3)),
    "neuron 584 of layer 11": ("blocks.11.mlp.hook_post", (..., 584)),
    "attention of layer 5": ("blocks.5.hook_attn_out", (...,)),
    "feed-forward of layer 29": ("blocks.29.hook_mlp_out", (...,)),
    "stream before layer 1, dimension 7": ("blocks.1.hook_resid_pre", (..., 7)),
}


def main() -> None:
    """Run one half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(dest="half", required=True)
    for name in ("record", "compare"):
        half = halves.add_parser(name)
        half.add_argument("file", type=Path)
    halves.choices["compare"].add_argument("folder")
    timing = halves.add_parser("time")
    timing.add_argument("folder")
    timing.add_argument("--rounds", type=int, default=2)
    timing.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.half == "record":
        record(options.file)
    elif options.half == "compare":
        compare(load_file(options.file), options.folder)
    else:
        torch.set_num_threads(options.threads)
        time_ablation(options.folder, options.rounds)


# --- innerworks' half ------------------------------------------------------------------------------------------------


def record(file: Path) -> None:
    """Keep what innerworks sees and what its edits do."""
    import innerworks as iw
    from innerworks.model.transformer_lens import run_with_cache, run_with_hooks

    model = iw.load()
    documents = iw.Corpus.open("builtin").documents
    texts = [next(one.text for one in documents if one.domain == domain) for domain in DOCUMENTS]
    tokens = torch.stack([model.tokenize(text)[0][0, :LENGTH] for text in texts])
    logits, cache = run_with_cache(model, tokens)
    kept = {"tokens": tokens, "logits": logits, **cache}
    for name, (hook, where) in EDITS.items():
        kept[f"edit {name}"] = run_with_hooks(model, tokens, [(hook, zeroing(where))])
    save_file({name: tensor.contiguous().clone() for name, tensor in kept.items()}, file)
    print(f"{file}: {len(cache)} activations of {len(tokens)} x {LENGTH} tokens; weights: {model.hf.config._name_or_path}")


def zeroing(where):
    """Make a hook function that sets part of an activation to zero."""

    def zero(tensor, hook):
        tensor = tensor.clone()
        tensor[where] = 0
        return tensor

    return zero


# --- TransformerLens' half -------------------------------------------------------------------------------------------


def compare(ours: dict, folder: str) -> None:
    """Print the largest differences between what both recorded, per hook, and between the logits after the same edits."""
    bridge = boot(folder)
    tokens = ours.pop("tokens")
    rows: dict[str, list[tuple[float, float]]] = {}
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        rows["logits"] = [difference(ours.pop("logits"), logits)]
        for name, (hook, where) in EDITS.items():
            edited = bridge.run_with_hooks(tokens, fwd_hooks=[(hook, zeroing(where))])
            moved = float((edited - logits).abs().max())
            rows[f"logits, {name} at zero (moves them by {moved:.2f})"] = [difference(ours.pop(f"edit {name}"), edited)]
    for name, mine in ours.items():
        hook = name.split(".", 2)[-1] if name.startswith("blocks.") else name
        rows.setdefault(hook, []).append(difference(*aligned(hook, mine, cache[name])))
    print("| hook | layers | largest absolute difference | largest relative difference |\n|---|---|---|---|")
    for hook, found in rows.items():
        print(f"| `{hook}` | {len(found)} | {max(one[0] for one in found):.1e} | {max(one[1] for one in found):.1e} |")


def aligned(hook: str, ours: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring both to one convention."""
    if hook in ("attn.hook_rot_k", "attn.hook_k", "attn.hook_v"):
        theirs = theirs.repeat_interleave(ours.shape[2] // theirs.shape[2], dim=2)
    if hook == "attn.hook_attn_scores":
        visible = torch.ones(ours.shape[-2:], dtype=torch.bool).tril()
        return ours[..., visible], theirs[..., visible]
    return ours, theirs


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest absolute difference, and the same in units of the root mean square of theirs."""
    if ours.shape != theirs.shape:
        raise SystemExit(f"shapes differ: {tuple(ours.shape)} here, {tuple(theirs.shape)} there")
    largest = float((ours - theirs).abs().max())
    return largest, largest / float(theirs.square().mean().sqrt())


def boot(folder: str):
    """Load a folder into TransformerLens, weights as they are."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(folder, hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32)


def time_ablation(folder: str, rounds: int) -> None:
    """Zero head 0 of each layer in turn by a hook, alternated with the plain forward, on the same tokens."""
    from transformers import AutoModelForCausalLM

    bridge, hf = boot(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(100, 10_000, BATCH, generator=torch.Generator().manual_seed(0))
    zero = zeroing((slice(None), slice(None), 0))
    layers, ratios = list(range(bridge.cfg.n_layers)), []
    with torch.no_grad():
        for layer in layers[:WARM_UP] + layers * rounds:
            start = time.perf_counter()
            hf(input_ids=tokens, use_cache=False)
            middle = time.perf_counter()
            bridge.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])
            ratios.append((time.perf_counter() - middle) / (middle - start))
    ratios = ratios[WARM_UP:]
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"one head ablated by TransformerLens' hooks / plain forward: {median:.2f} "
        f"(median of {len(ratios)} alternated pairs over all layers, quartiles {low:.2f} and {high:.2f}, "
        f"{BATCH[0]} x {BATCH[1]} tokens, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
