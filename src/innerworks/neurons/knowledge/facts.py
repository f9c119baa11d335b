"""Facts, and several ways to ask for each: capitals, languages, what things are made of, and what young animals are called.

1. A fact is kept where its answer is one token after every way of asking, and stands in none of the prompts.
2. The ways of asking are dealt to two halves: those of discovery find the neurons of a fact, those of confirmation test them.

Dai et al. 2022, arXiv:2104.08696, ask cloze questions of a masked model; here the answer is the next token. All sentences and
lists are our own. What it does not do: answers of several tokens, or languages other than English.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from innerworks.stats import Half, deal_halves
from innerworks.text.tasks.pairs import encoded, next_token, unknown

HALVES: tuple[Half, Half] = ("discovery", "confirmation")
WAYS = 3  # of asking for the facts of a relation, on either half


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Ways of asking (the answer comes next), and subjects with their answers."""

    ways: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`France Paris, South Korea Seoul`: the last word is the answer."""
    return tuple((subject, answer) for subject, _, answer in (one.strip().rpartition(" ") for one in text.split(",")))


RELATIONS = {
    "capital": Relation(
        ways=(
            "The capital of {} is",
            "The capital city of {} is called",
            "{} has its capital in",
            "The seat of the government of {} is the city of",
            "Whoever wants to visit the capital of {} must travel to",
            "The largest museum of {} is in its capital,",
        ),
        facts=_pairs(
            "France Paris, Italy Rome, Germany Berlin, Spain Madrid, Japan Tokyo, Russia Moscow, Greece Athens, Egypt Cairo, "
            "China Beijing, Austria Vienna, Portugal Lisbon, Poland Warsaw, Sweden Stockholm, Norway Oslo, Ireland Dublin, "
            "Hungary Budapest, Cuba Havana, Iran Tehran, Iraq Baghdad, Thailand Bangkok, South Korea Seoul, Kenya Nairobi, "
            "Denmark Copenhagen, Belgium Brussels, Canada Ottawa, Turkey Ankara, Finland Helsinki, Syria Damascus, Peru Lima"
        ),
    ),
    "language": Relation(
        ways=(
            "The official language of {} is",
            "Most people in {} speak",
            "In {}, newspapers are written in",
            "At school, the children of {} learn to read in",
            "The mother tongue of most people in {} is",
            "Someone who grew up in {} most likely speaks",
        ),
        facts=_pairs(
            "France French, Germany German, Italy Italian, Russia Russian, Japan Japanese, China Chinese, Greece Greek, "
            "Poland Polish, Brazil Portuguese, Mexico Spanish, Argentina Spanish, Austria German, Egypt Arabic, Iraq Arabic, "
            "Australia English, Jamaica English, Sweden Swedish, Norway Norwegian, Turkey Turkish, Denmark Danish, Iran Persian, "
            "Israel Hebrew, Portugal Portuguese, Chile Spanish, South Korea Korean, Vietnam Vietnamese, Hungary Hungarian"
        ),
    ),
    "material": Relation(
        ways=(
            "We all know that {} is made from",
            "The main ingredient of {} is",
            "In order to produce {}, one needs a lot of",
            "The raw material for {} is",
            "In the factory, {} is made out of",
            "There would be no {} without",
        ),
        facts=_pairs(
            "wine grapes, cheese milk, bread flour, paper wood, chocolate cocoa, glass sand, steel iron, ketchup tomatoes, "
            "tofu soy, cider apples, sushi rice, popcorn corn, yogurt milk, pasta wheat, furniture wood, denim cotton, "
            "rum sugar, pottery clay, flour wheat, mayonnaise eggs, toast bread, leather hides"
        ),
    ),
    "young": Relation(
        ways=(
            "A young {} is called a",
            "The baby of a {} is known as a",
            "When a {} gives birth, the newborn is a",
            "The mother {} feeds her little",
            "Before it is a grown {}, the animal is a",
            "The word for the child of a {} is",
        ),
        facts=_pairs(
            "dog puppy, cat kitten, cow calf, sheep lamb, lion cub, bear cub, chicken chick, goat kid, wolf pup, seal pup, "
            "tiger cub, whale calf, eagle chick, fox cub, elephant calf, horse foal, deer fawn, owl chick, leopard cub"
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact. prompts: a token sequence for each way of asking of each half; answer: a token id."""

    relation: str
    subject: str
    word: str
    answer: int
    prompts: dict[Half, tuple[tuple[int, ...], ...]]

    @property
    def name(self) -> str:
        """`France (capital)`."""
        return f"{self.subject} ({self.relation})"


def facts(tokenizer: PreTrainedTokenizerBase) -> tuple[Fact, ...]:
    """Every fact whose answer is one token after every way of asking, one of each relation in turn."""
    by_relation = [list(_of(tokenizer, name, relation)) for name, relation in RELATIONS.items()]
    longest = max(len(some) for some in by_relation)
    return tuple(some[rank] for rank in range(longest) for some in by_relation if rank < len(some))


def _of(tokenizer: PreTrainedTokenizerBase, name: str, relation: Relation) -> Iterator[Fact]:
    halves = deal_halves(relation.ways, [name] * len(relation.ways))
    for subject, word in relation.facts:
        texts = [way.format(subject) for way in relation.ways]
        answers = {next_token(tokenizer, text, word) for text in texts}
        ids = [encoded(tokenizer, text) for text in texts]
        answer = answers.pop() if len(answers) == 1 else None
        if answer is None or any(answer in one or unknown(tokenizer, one) for one in ids):
            continue
        prompts: dict[Half, tuple[tuple[int, ...], ...]] = {
            half: tuple(one for one, at in zip(ids, halves, strict=True) if at == half) for half in HALVES
        }
        yield Fact(relation=name, subject=subject, word=word, answer=answer, prompts=prompts)
