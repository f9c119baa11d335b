"""What does observing cost? Plain forwards of Hugging Face against the same tokens with the instruments of a scan.

    python benchmarks/scan.py            time, as the median ratio of alternated pairs; peak memory at 10k and 100k tokens
    python benchmarks/scan.py --tokens 10000    one reading of so many tokens in this process; prints its peak memory in MB

Budget: instruments of heads and neurons at most 1.35 plain forwards (sdpa, with logits), on batches of discovery and of confirmation
in turn; peak memory at 100k tokens within 10 % of that at 10k.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

import innerworks as iw
from innerworks.scan.engine import HALVES, begin, observe, observe_batch
from innerworks.scan.studies import studies, watch
from innerworks.text import Corpus, Document, Reading, read

PAIRS = 9
BUDGET, MEMORY_BUDGET = 1.35, 1.10
MODEL = "smollm2-135m-instruct"


def main() -> None:
    """Print the ratios, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, help="read so many tokens and print the peak memory")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="alternated pairs to time")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.tokens:
        print(peak_memory(options.tokens))
        return
    ratios = time_ratios(options.pairs)
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(
        f"observing / plain forward with logits: {median:.2f} "
        f"(median of {len(ratios)} pairs, {low:.2f} to {high:.2f}; budget {BUDGET})"
    )
    sys.stdout.flush()
    small, large = (memory_of(tokens) for tokens in (10_000, 100_000))
    print(f"peak memory: {small:.0f} MB at 10k tokens, {large:.0f} MB at 100k: {large / small:.3f} (budget {MEMORY_BUDGET})")


def time_ratios(pairs: int) -> list[float]:
    """Seconds of a batch with instruments over seconds of the plain forward on the same batch, alternated."""
    model = iw.load(MODEL)
    reading = prepared(model, Corpus.open("builtin"))
    batches = [reading.batches(half)[0] for half in HALVES]
    instruments, ratios = watch(model, studies()), []
    progress = begin(model, reading, instruments)
    for pair in range(pairs + len(batches)):
        batch = batches[pair % len(batches)]
        start = time.perf_counter()
        with torch.no_grad():
            model.hf(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)
        middle = time.perf_counter()
        observe_batch(model, batch, instruments, progress)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return ratios[len(batches) :]  # the first of each half warms up


def prepared(model: iw.Model, corpus: Corpus) -> Reading:
    """Windows of a corpus for a model."""
    return read(corpus, model.tokenizer, vocab=model.anatomy.vocab, max_positions=model.anatomy.max_positions)


def memory_of(tokens: int) -> float:
    """Peak memory in MB of a fresh process that reads so many tokens."""
    done = subprocess.run([sys.executable, __file__, "--tokens", str(tokens)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_memory(tokens: int) -> float:
    """Read about so many tokens of made-up documents (the built-in ones with their words shuffled) and report the peak."""
    generator = torch.Generator().manual_seed(0)
    model = iw.load(MODEL)
    source = [document.text.split() for document in Corpus.open("builtin").documents]
    documents = []
    for i in range(tokens // 190 + 1):
        words = source[i % len(source)]
        order = torch.randperm(len(words), generator=generator).tolist()
        documents.append(Document(id=str(i), text=" ".join(words[j] for j in order), domain=f"domain {i % 10}"))
    reading = prepared(model, Corpus.of("shuffled", documents))
    instruments = watch(model, studies())
    observe(model, reading, instruments, begin(model, reading, instruments))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
