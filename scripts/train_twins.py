"""Train a small language model on local text, so that two from different seeds, or of different families, can be compared.

python scripts/train_twins.py stories.jsonl.gz --seed 0 --out twin_0
python scripts/train_twins.py stories.jsonl.gz --seed 1 --out twin_1
python scripts/train_twins.py stories.jsonl.gz --family opt --vocab 1536 --out opt_relu      its neurons are ReLU
innerworks universal twin_0 twin_1 --corpus file:twin_0/held_out.jsonl

Text: a .jsonl file, also gzipped, with a "text" per line. Nothing of it is part of this project, nor are the models.

1. Documents are split by the hash of their text: 1 in 10 is held out, and written beside the model as `held_out.jsonl`.
2. A byte-level BPE is built on the rest (by the text alone: twins have the same), and a model of 4 layers is trained on it, one
   core, some minutes. The seed decides initial weights and the order of the text.
3. The floor of quality, fixed beforehand: the held-out loss lies FLOOR nats per token below that of a bigram model, interpolated
   with unigrams as is best on the held-out text itself. A model that misses it knows no more than pairs of tokens, nothing is
   worth measuring in it, and it is not saved.
"""

import argparse
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

FLOOR = 0.30  # nats per token below the bigram model
HELD_OUT = 10  # one document in so many
END = "<|endoftext|>"
LAYERS, WIDTH, HEADS, CONTEXT = 4, 128, 4, 128
BATCH = 8  # windows per step
PEAK, WARMUP, DECAY = 2e-3, 50, 0.1  # learning rate, steps until it, weight decay


def main() -> None:
    """Read, split, build the tokenizer, train, hold against n-grams, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=("gpt2", "opt"), default="gpt2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.out.exists():
        sys.exit(f"{options.out} exists already. Choose another --out, or remove it.")
    training, held_out = split(documents(options.text))
    tokenizer = tokenizer_of(training, options.vocab)
    train, test = stream(tokenizer, training), stream(tokenizer, held_out)
    for what, tokens, least in (("to train on", train, 2 * CONTEXT), ("held out", test, CONTEXT)):
        if len(tokens) < least:
            sys.exit(f"{options.text} leaves {len(tokens)} tokens {what}; {least} are the least. Give it more text.")
    unigram, bigram = n_gram_losses(train, test, len(tokenizer))
    say(f"{len(train):,} tokens to train on, {len(test):,} held out: unigram {unigram:.3f}, bigram {bigram:.3f} nats per token")
    torch.manual_seed(options.seed)
    model = build(options.family, len(tokenizer))
    fit(model, train, options.steps, np.random.default_rng(options.seed))
    reached = held_out_loss(model, test)
    say(f"held-out loss {reached:.3f} nats per token, {bigram - reached:.3f} below the bigram model (floor {FLOOR})")
    if reached > bigram - FLOOR:
        sys.exit("The floor of quality is missed; nothing was saved. Train for more --steps.")
    save(model, tokenizer, held_out, options.out)


def say(line: str) -> None:
    """Report at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# --- text --------------------------------------------------------------------------------------------------------


def documents(path: Path) -> list[str]:
    """The texts of a .jsonl file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines if line.strip()]


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """What to train on, and what is held out; by the text alone."""
    out = [int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT == 0 for text in texts]
    return [t for t, o in zip(texts, out, strict=True) if not o], [t for t, o in zip(texts, out, strict=True) if o]


def tokenizer_of(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of these texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


def stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """All documents in a row, each with an end."""
    ids = [[*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    return torch.tensor([token for one in ids for token in one])


def n_gram_losses(train: torch.Tensor, test: torch.Tensor, vocab: int) -> tuple[float, float]:
    """Held-out nats per token of a unigram model, and of bigrams interpolated with it as is best for the held-out text."""
    single = torch.bincount(train, minlength=vocab).double() + 1
    single /= single.sum()
    pairs = torch.bincount(train[:-1] * vocab + train[1:], minlength=vocab * vocab).view(vocab, vocab).double()
    given = pairs / pairs.sum(dim=1, keepdim=True).clamp(min=1)
    one, two = single[test[1:]], given[test[:-1], test[1:]]
    mixtures = [float(-(w * two + (1 - w) * one).log().mean()) for w in np.arange(0.05, 1.0, 0.05)]
    return float(-one.log().mean()), min(mixtures)


# --- the model ---------------------------------------------------------------------------------------------------


def build(family: str, vocab: int) -> PreTrainedModel:
    """A fresh model; every neuron a GELU (gpt2) or a ReLU (opt)."""
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab,
                n_layer=LAYERS,
                n_embd=WIDTH,
                n_head=HEADS,
                n_positions=CONTEXT,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocab,
            num_hidden_layers=LAYERS,
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            activation_function="relu",
            dropout=0.0,
            attention_dropout=0.0,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def fit(model: PreTrainedModel, train: torch.Tensor, steps: int, rng: np.random.Generator) -> None:
    """AdamW, linear warm-up and cosine decay, windows in random order, each as often as another."""
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    plain = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step, steps))
    began, order = time.perf_counter(), windows(train, rng)
    model.train()
    for step in range(steps):
        batch = torch.stack([next(order) for _ in range(BATCH)])
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        if (step + 1) % 100 == 0 or step == 9:
            say(f"step {step + 1} of {steps}: loss {float(loss.detach()):.3f}, {time.perf_counter() - began:.0f} s")
    model.eval()


def schedule(step: int, steps: int) -> float:
    """Of the peak learning rate."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * (step - WARMUP) / max(1, steps - WARMUP))))


def windows(train: torch.Tensor, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Windows of the text, epoch after epoch, each epoch cut at another place."""
    while True:
        shift = int(rng.integers(CONTEXT))
        starts = np.arange(shift, len(train) - CONTEXT, CONTEXT)
        for start in rng.permutation(starts):
            yield train[start : start + CONTEXT]


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, test: torch.Tensor) -> float:
    """Nats per token over windows of the held-out text; the first token of each is not predicted."""
    whole = test[: len(test) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [float(model(input_ids=part, labels=part).loss) * len(part) for part in whole.split(BATCH)]
    return sum(losses) / len(whole)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held_out: list[str], out: Path) -> None:
    """A folder that `innerworks` loads, and the text it has not seen."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    rows = [json.dumps({"id": f"held out {i}", "domain": "held out", "text": text}) for i, text in enumerate(held_out)]
    (out / "held_out.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    say(f"saved {out}")


if __name__ == "__main__":
    main()
