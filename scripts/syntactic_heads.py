"""Which heads of a model follow which syntactic relation, on a corpus whose syntax is known? Prints a table in Markdown.

    python scripts/syntactic_heads.py file:en_pud-ud.conllu
    python scripts/syntactic_heads.py builtin --model gpt2 --figure syntax.html
    python scripts/syntactic_heads.py builtin --shuffled       nothing must be labelled

Per relation and direction: the head that is best on the discovery half, what it and the best fixed offset find on the other
half, the gap with its 95 % interval, and the heads that are labelled. With --shuffled the arcs of each relation point as far back
as another arc of the same relation does: distances stay, syntax goes.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import innerworks as iw
from innerworks.findings import Finding, frame
from innerworks.heads.syntax import Syntax, shuffled
from innerworks.scan.engine import begin, observe
from innerworks.scan.studies import ask, watch
from innerworks.show.figures.syntax import relations
from innerworks.text import Corpus, Reading, read

SHOWN = 4  # labelled heads named in a row


def main() -> None:
    """Read, watch, decide, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="builtin, or file:X.conllu")
    parser.add_argument("--model", help="a model; the default is the specimen")
    parser.add_argument("--documents", type=int, help="read at most so many per domain")
    parser.add_argument("--shuffled", action="store_true", help="point the arcs elsewhere, as far back: a null")
    parser.add_argument("--figure", type=Path, help="also write a figure, as HTML")
    parser.add_argument("--findings", type=Path, help="also write all rows, as parquet")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = iw.load(options.model) if options.model else iw.load()
    corpus = Corpus.open(options.corpus)
    corpus = corpus.sample(options.documents) if options.documents else corpus
    corpus = replace(corpus, documents=tuple(document for document in corpus.documents if document.trees))
    a = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=a.vocab, max_positions=a.max_positions, sequences=0)
    reading = shuffled(reading, np.random.default_rng(0)) if options.shuffled else reading
    found = syntactic(model, reading)
    sys.stdout.write(
        f"{model.name}, {corpus.name}, {len(reading.units)} documents, {reading.tokens:,} tokens\n\n{table(found)}\n"
    )
    if options.figure:
        relations(frame(found)).write_html(options.figure)
    if options.findings:
        frame(found).write_parquet(options.findings)


def syntactic(model: iw.Model, reading: Reading) -> list[Finding]:
    """One pass with the study of syntactic heads alone."""
    study = [Syntax()]
    watching = watch(model, study)
    current = observe(model, reading, watching, begin(model, reading, watching))
    return ask(study, model, reading, current, depth="standard", seed=0).findings


def table(findings: list[Finding]) -> str:
    """One line per relation and direction."""
    lines = [
        "| relation | documents | best head | finds | best offset | finds | gap | q | labelled |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in (one for one in findings if "best on discovery" in one.note):
        same = (other for other in findings if other.behaviour == one.behaviour and other.rung)
        labels = sorted(same, key=lambda other: -other.effect)
        sites = ", ".join(other.site for other in labels[:SHOWN]) + ", ..." * (len(labels) > SHOWN)
        q = "not a candidate" if one.q is None else f"{one.q:.2g}"
        lines.append(
            f"| `{one.behaviour.removeprefix('syntactic:')}` | {one.n} | {one.site} | {one.value:.2f} | {one.note.split(';')[0]} "
            f"| {one.null:.2f} | {one.effect:+.2f} [{one.effect_low:+.2f}, {one.effect_high:+.2f}] | {q} "
            f"| {len(labels)}{': ' * bool(labels)}{sites} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
