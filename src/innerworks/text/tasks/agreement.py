"""Does the verb agree with its subject, when a noun of the other number stands between them?

1. A unit is a subject noun in one template; each noun is used in one template only, so that units share no subject.
2. Two items per unit: a singular subject with a plural noun between (*The teacher near the dogs*), and the reverse; the corrupt
   twin has the subject in the other number. Templates have no verb that tells the number before the one that is asked for.
3. Right and wrong next words: *is* and *are*, *has* and *have*, *seems* and *seem*, ...: those pairs that are single tokens.
4. Units are dealt to two halves within each template.

After Linzen et al. 2016, arXiv:1611.01368 (attractors) and Marvin and Linzen 2018, arXiv:1808.09031 (templates); all sentences
are our own. What it does not do: languages other than English; questions, or subjects of several words.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

from transformers import PreTrainedTokenizerBase

from innerworks.stats import deal_halves
from innerworks.text.tasks.pairs import Pair, encoded, next_tokens, only_difference

#: name -> template: three with a phrase between subject and verb, three with a clause
TEMPLATES = {
    "near": "The {subject} near the {between}",
    "behind": "We heard that the {subject} behind the {between}",
    "with": "In the evening the {subject} with the {between}",
    "who saw": "The {subject} who saw the {between}",
    "that followed": "The {subject} that the {between} followed",
    "who fed": "They know that the {subject} who fed the {between}",
}
#: singular and plural
VERBS = (
    ("is", "are"),
    ("was", "were"),
    ("has", "have"),
    ("does", "do"),
    ("seems", "seem"),
    ("looks", "look"),
    ("wants", "want"),
    ("needs", "need"),
)
_REGULAR = (
    "teacher doctor student writer author driver farmer guard officer player manager actor artist singer worker engineer parent "
    "king judge girl boy friend brother sister leader customer scientist nurse mother father son daughter visitor user owner "
    "member partner patient professor expert coach captain hunter winner guest host victim agent editor poet prince queen "
    "lord master slave citizen president official reporter buyer seller employee employer scholar designer developer musician "
    "director producer athlete runner speaker adult lawyer pilot soldier dancer neighbor critic priest witness"
)
NOUNS = (
    *((noun, noun + ("es" if noun.endswith("s") else "s")) for noun in _REGULAR.split()),
    *(("man", "men"), ("woman", "women"), ("child", "children"), ("hero", "heroes"), ("lady", "ladies"), ("baby", "babies")),
)
BETWEEN = tuple((one, one + "s") for one in "dog cat horse bird cow bear lion rabbit pig goat duck chicken snake monkey".split())


def agreement(tokenizer: PreTrainedTokenizerBase) -> tuple[Pair, ...]:
    """All items that a tokenizer keeps aligned, with single tokens as answers; two per unit, dealt to the halves."""
    templates = cycle(TEMPLATES)
    found: list[tuple[Pair, Pair]] = []
    for number, noun in enumerate(_whole(tokenizer, NOUNS)):
        name, nouns = next(templates), _whole(tokenizer, BETWEEN)
        if nouns:
            found += _unit(tokenizer, name, noun, nouns[number // len(TEMPLATES) % len(nouns)])
    halves = deal_halves([both[0].clean for both in found], [both[0].stratum for both in found])
    return tuple(replace(one, half=half) for both, half in zip(found, halves, strict=True) for one in both)


def _whole(tokenizer: PreTrainedTokenizerBase, nouns: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Nouns whose two forms are one token each, inside a sentence."""
    frame = "The {} near".format
    texts = [(encoded(tokenizer, frame(one)), encoded(tokenizer, frame(several))) for one, several in nouns]
    shortest = len(encoded(tokenizer, "The near"))
    aligned = [only_difference(*both) is not None and len(both[0]) == shortest + 1 for both in texts]
    known = [not any(tokenizer.unk_token_id in ids for ids in both) for both in texts]
    return [noun for noun, fits, here in zip(nouns, aligned, known, strict=True) if fits and here]


def _unit(
    tokenizer: PreTrainedTokenizerBase, template: str, noun: tuple[str, str], between: tuple[str, str]
) -> Iterator[tuple[Pair, Pair]]:
    """Both items of a subject in a template, or nothing where one of them is not aligned."""
    both = [_pair(tokenizer, template, noun, between, number) for number in (0, 1)]
    if both[0] is not None and both[1] is not None:
        yield both[0], both[1]


def _pair(
    tokenizer: PreTrainedTokenizerBase, template: str, noun: tuple[str, str], between: tuple[str, str], number: int
) -> Pair | None:
    """The subject in one number (0 singular, 1 plural), the noun between in the other."""
    fill, other = TEMPLATES[template].format, 1 - number
    clean = fill(subject=noun[number], between=between[other])
    corrupt = fill(subject=noun[other], between=between[other])
    matching = fill(subject=noun[number], between=between[number])
    tokens, twin = encoded(tokenizer, clean), encoded(tokenizer, corrupt)
    subject, attractor = only_difference(tokens, twin), only_difference(tokens, encoded(tokenizer, matching))
    answers, foils = next_tokens(tokenizer, clean, ((verb[number], verb[other]) for verb in VERBS))
    if subject is None or attractor is None or not answers or tokenizer.unk_token_id in (*tokens, *twin):
        return None
    return Pair(
        unit=f"{template}/{noun[0]}",
        stratum=template,
        half="discovery",
        clean=clean,
        corrupt=corrupt,
        tokens=tokens,
        corrupt_tokens=twin,
        answers=answers,
        foils=foils,
        positions={"subject": subject, "attractor": attractor, "last": len(tokens) - 1},
    )
