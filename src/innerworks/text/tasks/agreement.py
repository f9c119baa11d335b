"""Does the verb agree with its subject, when a noun of the other number stands between them?

1. A unit is a template, since nouns in one template fare alike; each subject noun is used in one template only.
2. Two items per noun: a singular subject with a plural noun between (*The teacher near the dogs*), and the reverse; the corrupt
   twin has the subject in the other number. Templates have no verb that tells the number before the one that is asked for.
3. Right and wrong next words: *is* and *are*, *has* and *have*, *seems* and *seem*, ...: those pairs that are single tokens.
4. Templates are dealt to two halves: those with a phrase between subject and verb, and those with a clause.

After Linzen et al. 2016, arXiv:1611.01368 (attractors) and Marvin and Linzen 2018, arXiv:1808.09031 (templates); all sentences
are our own. What it does not do: languages other than English; questions, or subjects of several words.
"""

from dataclasses import replace
from itertools import cycle

from transformers import PreTrainedTokenizerBase

from innerworks.stats import deal_halves
from innerworks.text.tasks.pairs import Pair, encoded, next_tokens, only_difference, unknown

#: stratum -> templates: a phrase or a clause between subject and verb
TEMPLATES = {
    "phrase": (
        "The {subject} near the {between}",
        "We heard that the {subject} behind the {between}",
        "In the evening the {subject} with the {between}",
        "Perhaps the {subject} beside the {between}",
        "I think the {subject} next to the {between}",
        "You know that the {subject} far from the {between}",
        "At noon the {subject} above the {between}",
        "Near the river the {subject} below the {between}",
        "Once more the {subject} in front of the {between}",
        "Every day the {subject} around the {between}",
        "In this story the {subject} without the {between}",
        "On Sunday the {subject} across from the {between}",
        "The {subject} holding the {between}",
        "Just now the {subject} under the {between}",
    ),
    "clause": (
        "The {subject} who saw the {between}",
        "The {subject} that the {between} followed",
        "They know that the {subject} who fed the {between}",
        "The {subject} whom the {between} liked",
        "Last year the {subject} who found the {between}",
        "They say the {subject} who lost the {between}",
        "Now the {subject} that the {between} chased",
        "In the film the {subject} who heard the {between}",
        "The {subject} who can see the {between}",
        "We said that the {subject} that the {between} knew",
        "Today the {subject} who will sell the {between}",
        "Of course the {subject} that the {between} left",
        "After dinner the {subject} who carried the {between}",
        "Sometimes the {subject} who called the {between}",
    ),
}
_ALL = tuple((stratum, template) for stratum, templates in TEMPLATES.items() for template in templates)
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
    """All items that a tokenizer keeps aligned, with single tokens as answers; two per noun, templates dealt to the halves."""
    found: list[Pair] = []
    nouns = _whole(tokenizer, BETWEEN)
    for number, (noun, (stratum, template)) in enumerate(zip(_whole(tokenizer, NOUNS), cycle(_ALL), strict=False)):
        if nouns:
            between = nouns[number // len(_ALL) % len(nouns)]
            both = [_pair(tokenizer, stratum, template, noun, between, singular) for singular in (0, 1)]
            found += [one for one in both if one is not None] if None not in both else []
    strata = {one.unit: one.stratum for one in found}
    halves = dict(zip(strata, deal_halves(list(strata), list(strata.values())), strict=True))
    return tuple(replace(one, half=halves[one.unit]) for one in found)


def _whole(tokenizer: PreTrainedTokenizerBase, nouns: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Nouns whose two forms are one token each, inside a sentence."""
    frame = "The {} near".format
    texts = [(encoded(tokenizer, frame(one)), encoded(tokenizer, frame(several))) for one, several in nouns]
    shortest = len(encoded(tokenizer, "The near"))
    aligned = [only_difference(*both) is not None and len(both[0]) == shortest + 1 for both in texts]
    known = [not any(unknown(tokenizer, ids) for ids in both) for both in texts]
    return [noun for noun, fits, here in zip(nouns, aligned, known, strict=True) if fits and here]


def _pair(
    tokenizer: PreTrainedTokenizerBase,
    stratum: str,
    template: str,
    noun: tuple[str, str],
    between: tuple[str, str],
    number: int,
) -> Pair | None:
    """The subject in one number (0 singular, 1 plural), the noun between in the other."""
    fill, other = template.format, 1 - number
    clean = fill(subject=noun[number], between=between[other])
    corrupt = fill(subject=noun[other], between=between[other])
    matching = fill(subject=noun[number], between=between[number])
    tokens, twin = encoded(tokenizer, clean), encoded(tokenizer, corrupt)
    subject, attractor = only_difference(tokens, twin), only_difference(tokens, encoded(tokenizer, matching))
    answers, foils = next_tokens(tokenizer, clean, ((verb[number], verb[other]) for verb in VERBS))
    if subject is None or attractor is None or not answers or unknown(tokenizer, tokens) or unknown(tokenizer, twin):
        return None
    return Pair(
        unit=template,
        stratum=stratum,
        half="discovery",
        clean=clean,
        corrupt=corrupt,
        tokens=tokens,
        corrupt_tokens=twin,
        answers=answers,
        foils=foils,
        positions={"subject": subject, "attractor": attractor, "last": len(tokens) - 1},
    )
