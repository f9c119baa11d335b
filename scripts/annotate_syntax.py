"""Make the syntactic annotations of the built-in corpus anew: train a parser on gold trees, measure it, let it read the texts.

python scripts/annotate_syntax.py train GOLD.conllu ... --encoder FOLDER --out parser.pt
python scripts/annotate_syntax.py write --parser parser.pt

Nothing of this is needed to use innerworks: it was run once, and its output lies in `src/innerworks/text/builtin/`. Besides
innerworks it needs spaCy, for its English word splitter alone, and a small encoder in the format of transformers (a BERT of
6 layers will do). Neither gold trees nor encoder are part of this project.

1. The gold documents are split by the hash of their id: 80 of 100 to train on, 5 to choose the epoch by, 15 to measure on.
2. Encoder states (mean over the pieces of a word, and how the word is capitalised) go through a biaffine classifier of heads
   and of relations (Dozat and Manning 2017, arXiv:1611.01734), and a classifier of where sentences begin.
3. Of each sentence the maximum spanning tree is taken. Subtypes of relations (`nsubj:pass`) are not told apart. Sentences
   with a formula are left out: gold trees know none, and what the parser makes of them is chance.
4. Measured on held-out gold, without punctuation: with gold words and sentences, and from raw text.
"""

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx
import spacy
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from innerworks.text.conllu import Sentence, rebuilt, sentences
from innerworks.text.corpus import Corpus
from innerworks.text.trees import ROOT, Tree, line_of

DOMAINS = ("news", "fiction", "science", "dialogue", "history", "mathematics")
BUILTIN = Path(__file__).resolve().parent.parent / "src" / "innerworks" / "text" / "builtin"
LONGEST = 150  # words read at once
FORMULA = frozenset("$=\\^{}_*+<>|")  # a sentence with one of these signs gets no tree: gold trees know no formulas
MASKED = 0.1  # share of pieces hidden in training
TAGS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
RELATIONS = (
    "acl advcl advmod amod appos aux case cc ccomp clf compound conj cop csubj dep det discourse dislocated expl fixed flat "
    "goeswith iobj list mark nmod nsubj nummod obj obl orphan parataxis punct reparandum root vocative xcomp"
).split()


# --- the parser ------------------------------------------------------------------------------------------------------


class Biaffine(nn.Module):
    """Scores of every pair of vectors, one per output."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, size + 1, size + 1))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """`[batch, output, i, j]` for `[batch, i, size]` and `[batch, j, size]`."""
        one, other = (torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) for x in (one, other))
        return torch.einsum("bis,ost,bjt->boij", one, self.weight, other)


class Parser(nn.Module):
    """Word vectors of an encoder, and what is read off them."""

    def __init__(self, encoder: str, *, config: Any = None) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(encoder) if config is None else AutoModel.from_config(config)
        self.encoder.get_input_embeddings().requires_grad_(False)
        width = self.encoder.config.hidden_size
        self.mix = nn.Parameter(torch.zeros(self.encoder.config.num_hidden_layers + 1))
        self.shape = nn.Embedding(5, 16)
        self.root = nn.Parameter(torch.zeros(1, 1, width + 16))
        self.mlps = nn.ModuleList([self._mlp(width + 16, size) for size in (256, 256, 96, 96)])
        self.arc, self.relation = Biaffine(256, 1), Biaffine(96, len(RELATIONS))
        self.tag, self.start = nn.Linear(width + 16, len(TAGS)), nn.Linear(width + 16, 1)

    @staticmethod
    def _mlp(width: int, size: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.33), nn.Linear(width, size), nn.GELU(), nn.Dropout(0.33))

    def forward(self, batch: "Batch") -> dict[str, Tensor]:
        """Logits: `arc [batch, word, head]` and `relation [batch, relation, word, head]`, head 0 being the root."""
        run = self.encoder(input_ids=batch.pieces, attention_mask=batch.pieces_mask, output_hidden_states=True)
        states = torch.stack(run.hidden_states, dim=-1) @ self.mix.softmax(dim=0)
        words = torch.cat([batch.pooling @ states, self.shape(batch.shapes)], dim=-1)
        heads = torch.cat([self.root.expand(len(words), -1, -1), words], dim=1)
        dependent, head, below, above = (m(x) for m, x in zip(self.mlps, (words, heads, words, heads), strict=True))
        return {
            "arc": self.arc(dependent, head)[:, 0],
            "relation": self.relation(below, above),
            "tag": self.tag(words),
            "start": self.start(words)[..., 0],
        }


@dataclass
class Batch:
    """Words of several texts as tensors."""

    pieces: Tensor
    pieces_mask: Tensor
    pooling: Tensor  # batch word piece: the mean over a word's pieces
    shapes: Tensor  # batch word: how it is capitalised
    lengths: list[int]


def batch_of(texts: list[list[str]], tokenizer: Any) -> Batch:
    """Prepare lists of words for the parser."""
    encoded = tokenizer(texts, is_split_into_words=True, padding=True, return_tensors="pt")
    longest = max(map(len, texts))
    pooling = torch.zeros(len(texts), longest, encoded["input_ids"].shape[1])
    shapes = torch.zeros(len(texts), longest, dtype=torch.long)
    for i, words in enumerate(texts):
        for piece, word in enumerate(encoded.word_ids(i)):
            if word is not None:
                pooling[i, word, piece] = 1
        shapes[i, : len(words)] = torch.tensor([_shape(word) for word in words])
    pooling /= pooling.sum(dim=-1, keepdim=True).clamp(min=1)
    return Batch(encoded["input_ids"], encoded["attention_mask"], pooling, shapes, [len(words) for words in texts])


def _shape(word: str) -> int:
    return 4 if any(c.isdigit() for c in word) else 3 if word.istitle() else 2 if word.isupper() else 1 if word.islower() else 0


def tree_of(arc: Tensor) -> list[int]:
    """The best tree for the scores `[word, head]` of one sentence: head 0 is the root, of one word only."""
    best, found = -float("inf"), [0]
    scores = arc.log_softmax(dim=-1)
    for top in scores[:, 0].topk(min(3, len(scores))).indices.tolist():
        allowed = scores.clone()
        allowed[:, 0] = -1e4
        allowed[top] = -1e4
        allowed[top, 0] = scores[top, 0]
        heads = allowed.argmax(dim=-1).tolist()
        if not _is_tree(heads):
            heads = _spanning(allowed)
        total = float(allowed[range(len(heads)), heads].sum())
        if total > best:
            best, found = total, heads
    return found


def _is_tree(heads: list[int]) -> bool:
    for word in range(len(heads)):
        above, steps = word + 1, 0
        while above and steps <= len(heads):
            above, steps = heads[above - 1], steps + 1
        if above:
            return False
    return True


def _spanning(scores: Tensor) -> list[int]:
    graph = networkx.DiGraph()
    for word, row in enumerate(scores.tolist(), start=1):
        graph.add_weighted_edges_from((head, word, score) for head, score in enumerate(row) if head != word)
    heads = [0] * len(scores)
    for head, word in networkx.maximum_spanning_arborescence(graph).edges:
        heads[word - 1] = head
    return heads


@dataclass
class Annotator:
    """A trained parser with its tokenizer: words in, trees out."""

    parser: Parser
    tokenizer: Any

    @cached_property
    def splitter(self) -> Any:
        """What splits English text into words."""
        return spacy.blank("en")

    @torch.inference_mode()
    def scores(self, words: list[str]) -> dict[str, Tensor]:
        """The parser's logits for one stretch of words."""
        self.parser.eval()
        return {name: logits[0] for name, logits in self.parser(batch_of([words], self.tokenizer)).items()}

    def parsed(self, scores: dict[str, Tensor], first: int, last: int) -> tuple[list[int], list[str]]:
        """Heads (-1 for the root) and relations of the words `first .. last - 1`, taken as one sentence."""
        columns = [0, *range(first + 1, last + 1)]
        heads = tree_of(scores["arc"][first:last][:, columns])
        chosen = scores["relation"][:, range(first, last), [columns[head] for head in heads]]
        root = RELATIONS.index("root")
        chosen[root] = -float("inf")
        names = [RELATIONS[i] for i in chosen.argmax(dim=0).tolist()]
        return [head - 1 for head in heads], ["root" if head == 0 else name for head, name in zip(heads, names, strict=True)]

    def read(self, text: str) -> tuple[Tree, ...]:
        """The trees of a text; a sentence never goes on over the end of a line."""
        trees: list[Tree] = []
        at = 0
        for line in text.split("\n"):
            spans = [(at + w.idx, at + w.idx + len(w)) for w in self.splitter.make_doc(line) if not w.is_space]
            at += len(line) + 1
            while spans:
                trees += self._next(text, spans)
        return tuple(trees)

    def _next(self, text: str, spans: list[tuple[int, int]]) -> list[Tree]:
        """Take the sentences that lie whole within the next words off `spans`."""
        window = spans[:LONGEST]
        words = [text[start:end] for start, end in window]
        scores = self.scores(words)
        bounds = [0, *(i for i in range(1, len(words)) if scores["start"][i] > 0), len(words)]
        if len(spans) > len(window) and len(bounds) > 2:
            bounds.pop()
        del spans[: bounds[-1]]
        found = []
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            heads, relations = self.parsed(scores, first, last)
            part = slice(first, last)
            found.append(
                Tree(words=tuple(words[part]), spans=tuple(window[part]), heads=tuple(heads), relations=tuple(relations))
            )
        return found


# --- training --------------------------------------------------------------------------------------------------------


def split(paths: list[Path]) -> dict[str, list[list[Sentence]]]:
    """The documents of the gold files, dealt by the hash of their id."""
    parts: dict[str, list[list[Sentence]]] = {"train": [], "dev": [], "test": []}
    for path in paths:
        documents: list[list[Sentence]] = []
        for sentence in sentences(path, path.read_text(encoding="utf-8")):
            if sentence.new_document or not documents:
                documents.append([])
            documents[-1].append(sentence)
        for document in documents:
            number = int(hashlib.sha256(str(document[0].document).encode()).hexdigest(), 16) % 100
            parts["test" if number < 15 else "dev" if number < 20 else "train"].append(document)
    return parts


def chunks(documents: list[list[Sentence]]) -> Iterator[list[Sentence]]:
    """One to four sentences at a time, drawn anew in each epoch."""
    for document in documents:
        at = 0
        while at < len(document):
            size = random.randint(1, 4)
            chunk = document[at : at + size]
            while sum(len(s.words) for s in chunk) > LONGEST and len(chunk) > 1:
                chunk.pop()
            at += len(chunk)
            yield chunk


def loss_of(parser: Parser, tokenizer: Any, group: list[list[Sentence]]) -> Tensor:
    """Cross-entropies of heads, relations, sentence starts and (a little) parts of speech."""
    batch = batch_of([[word for s in chunk for word in s.words] for chunk in group], tokenizer)
    batch.pieces = torch.where(torch.rand(batch.pieces.shape) < MASKED, tokenizer.mask_token_id, batch.pieces)
    logits = parser(batch)
    total = torch.zeros(())
    for i, chunk in enumerate(group):
        heads, relations, tags, starts, same = _targets(chunk)
        n, cross = len(heads), nn.functional.cross_entropy
        arc = logits["arc"][i, :n, : n + 1].masked_fill(~same, -1e4)
        relation = logits["relation"][i, :, range(n), heads].T
        total = total + cross(arc, heads, reduction="sum") + cross(relation, relations, reduction="sum")
        total = total + 0.2 * cross(logits["tag"][i, :n], tags, reduction="sum")
        total = total + nn.functional.binary_cross_entropy_with_logits(logits["start"][i, :n], starts, reduction="sum")
    return total / sum(batch.lengths)


def _targets(chunk: list[Sentence]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    heads, relations, tags, starts, owner = [], [], [], [], []
    for number, sentence in enumerate(chunk):
        base = len(heads)
        heads += [0 if head == ROOT else base + head + 1 for head in sentence.heads]
        relations += [RELATIONS.index(name.split(":")[0]) for name in sentence.relations]
        tags += [TAGS.index(tag) if tag in TAGS else TAGS.index("X") for tag in sentence.tags]
        starts += [1.0] + [0.0] * (len(sentence.words) - 1)
        owner += [number] * len(sentence.words)
    of = torch.tensor(owner)
    same = torch.cat([torch.ones(len(of), 1, dtype=torch.bool), of[:, None] == of[None, :]], dim=1)
    return torch.tensor(heads), torch.tensor(relations), torch.tensor(tags), torch.tensor(starts), same


def train(arguments: argparse.Namespace) -> None:
    """Train, keep the epoch that is best on the development part, and measure it on the test part."""
    random.seed(0)
    torch.manual_seed(0)
    parts = split(arguments.gold)
    annotator = Annotator(Parser(str(arguments.encoder)), AutoTokenizer.from_pretrained(str(arguments.encoder)))
    optimizer, schedule = _optimizer(annotator.parser, arguments.epochs, len(list(chunks(parts["train"]))))
    best = -1.0
    for epoch in range(arguments.epochs):
        began = time.perf_counter()
        _epoch(annotator, parts["train"], optimizer, schedule)
        result = measure(annotator, parts["dev"])
        if result["LAS"] > best:
            best = result["LAS"]
            _save(annotator, arguments, {})
        say(f"epoch {epoch}: {time.perf_counter() - began:.0f} s, development UAS {result['UAS']:.4f} LAS {result['LAS']:.4f}")
    annotator, about = load(arguments.out)
    about |= {"gold words, gold sentences": measure(annotator, parts["test"]), "raw text": measure_raw(annotator, parts["test"])}
    about["words"] = {part: sum(len(s.words) for d in documents for s in d) for part, documents in parts.items()}
    _save(annotator, arguments, about)
    say(json.dumps(about, indent=1))


def _optimizer(parser: Parser, epochs: int, chunks: int) -> tuple[Any, Any]:
    inner = [p for p in parser.encoder.parameters() if p.requires_grad]
    outer = [p for name, p in parser.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW([{"params": inner, "lr": 3e-4}, {"params": outer, "lr": 2e-3}], weight_decay=0.01)
    steps = epochs * -(-chunks // 8)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 60, max(0.0, 1.02 - step / steps))
    )


def _epoch(annotator: Annotator, documents: list[list[Sentence]], optimizer: Any, schedule: Any) -> None:
    annotator.parser.train()
    drawn = list(chunks(documents))
    random.shuffle(drawn)
    groups = []
    for i in range(0, len(drawn), 80):  # chunks of like length go together
        pool = sorted(drawn[i : i + 80], key=lambda chunk: sum(len(sentence.words) for sentence in chunk))
        groups += [pool[k : k + 8] for k in range(0, len(pool), 8)]
    random.shuffle(groups)
    for group in groups:
        loss = loss_of(annotator.parser, annotator.tokenizer, group)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(annotator.parser.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _save(annotator: Annotator, arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    about = {"encoder": arguments.encoder_name, "gold": [path.name for path in arguments.gold], **about}
    torch.save(
        {"weights": annotator.parser.state_dict(), "encoder": str(arguments.encoder), "about": json.dumps(about)}, arguments.out
    )


def load(path: Path) -> tuple[Annotator, dict[str, Any]]:
    """A trained parser, and what is known of it."""
    saved = torch.load(path, weights_only=True)
    parser = Parser(saved["encoder"], config=AutoConfig.from_pretrained(saved["encoder"]))
    parser.load_state_dict(saved["weights"])
    return Annotator(parser, AutoTokenizer.from_pretrained(saved["encoder"])), json.loads(saved["about"])


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(annotator: Annotator, documents: list[list[Sentence]]) -> dict[str, Any]:
    """Attachment scores with gold words and sentences (each read alone), and F1 per relation."""
    pairs = []
    for sentence in (sentence for document in documents for sentence in document):
        heads, relations = annotator.parsed(annotator.scores(sentence.words), 0, len(sentence.words))
        gold = [name.split(":")[0] for name in sentence.relations]
        pairs += zip(zip(sentence.heads, gold, strict=True), zip(heads, relations, strict=True), strict=True)
    pairs = [(gold, found) for gold, found in pairs if gold[1] != "punct"]
    right, in_gold, in_found = (Counter(), Counter(), Counter())
    for gold, found in pairs:
        in_gold[gold[1]] += 1
        in_found[found[1]] += 1
        right[gold[1]] += gold == found
    return {
        "UAS": round(sum(gold[0] == found[0] for gold, found in pairs) / len(pairs), 4),
        "LAS": round(sum(right.values()) / len(pairs), 4),
        "words": len(pairs),
        "F1": {r: round(2 * right[r] / (n + in_found[r]), 3) for r, n in in_gold.most_common() if n >= 20},
    }


def measure_raw(annotator: Annotator, documents: list[list[Sentence]]) -> dict[str, float]:
    """F1 over arcs between stretches of characters, from raw text: word splitting and sentence ends are the parser's own."""
    counts = defaultdict(int)
    for document in documents:
        text, gold = rebuilt(Path("gold"), document)
        ours, theirs = _arcs(annotator.read(text)), _arcs(gold)
        counts["ours"] += len(ours)
        counts["theirs"] += len(theirs)
        counts["UAS"] += len({arc[:2] for arc in ours} & {arc[:2] for arc in theirs})
        counts["LAS"] += len(ours & theirs)
        starts = [{tree.spans[0][0] for tree in trees} for trees in (annotator.read(text), gold)]
        counts["starts right"] += len(starts[0] & starts[1])
        counts["starts"] += len(starts[0]) + len(starts[1])
    scores = {name: round(2 * counts[name] / (counts["ours"] + counts["theirs"]), 4) for name in ("UAS", "LAS")}
    return {**scores, "sentence starts F1": round(2 * counts["starts right"] / counts["starts"], 4)}


def _arcs(trees: tuple[Tree, ...]) -> set[tuple[Any, ...]]:
    return {
        (span, None if head == ROOT else tree.spans[head], relation.split(":")[0])
        for tree in trees
        for span, head, relation in zip(tree.spans, tree.heads, tree.relations, strict=True)
        if relation != "punct"
    }


# --- writing ---------------------------------------------------------------------------------------------------------


def write(arguments: argparse.Namespace) -> None:
    """Annotate the English domains of the built-in corpus."""
    annotator, about = load(arguments.parser)
    paths = {domain: BUILTIN / f"{domain}.syntax.jsonl" for domain in DOMAINS}
    for path in paths.values():
        path.unlink(missing_ok=True)  # stale ones would be refused
    corpus = Corpus.open("builtin")
    for domain, path in paths.items():
        documents = [document for document in corpus.documents if document.domain == domain]
        header = {
            "format": 1,
            "labels": "Universal Dependencies, without subtypes",
            "left out": f"sentences with a sign of a formula or of code: {' '.join(sorted(FORMULA))}",
            "parser": about,
        }
        lines = [json.dumps(header), *(line_of(d.id, d.text, prose(annotator.read(d.text), d.text)) for d in documents)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        say(f"{path}: {len(documents)} documents, {path.stat().st_size} bytes")


def prose(trees: tuple[Tree, ...], text: str) -> list[Tree]:
    """The trees of sentences without a formula."""
    return [tree for tree in trees if FORMULA.isdisjoint(text[tree.spans[0][0] : tree.spans[-1][1]])]


def say(text: str) -> None:
    """Tell who runs this."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    training = verbs.add_parser("train", help="train a parser on gold trees and measure it")
    training.add_argument("gold", type=Path, nargs="+")
    training.add_argument("--encoder", type=Path, required=True, help="a folder that transformers can load")
    training.add_argument("--encoder-name", required=True, help="what it is, for the record")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--epochs", type=int, default=7)
    training.set_defaults(run=train)
    writing = verbs.add_parser("write", help="annotate the built-in corpus")
    writing.add_argument("--parser", type=Path, required=True)
    writing.set_defaults(run=write)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
