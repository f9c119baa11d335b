"""What a neuron's labels come to, in a few words, by rule.

1. Every label gives one clause, by a table: what it says holds by that label's own test, on its floor.
2. What stands where the neuron is strongest may make a clause narrower ("digits" for the sort of token), but only if *all* of
   these contexts agree, and only for a label to which it belongs. It never makes a clause of its own: contexts illustrate,
   labels claim.
3. The highest rung first; a label that is shown to be necessary says so. Without a label there is nothing to say.

>>> one("alphabet_neuron", None)
'responds to the letter that a token begins with'
"""

from collections.abc import Callable, Sequence

from innerworks.atlas import Context, NeuronExample
from innerworks.show.behaviours import behaviour_of
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head

LEAST = 3  # contexts that must agree
ROUND = (4, 8, 16, 32, 64, 128, 256)  # tokens, of what lies at the beginning of a text
SHOWN = 4  # tokens named


def described(labels: Sequence[Head], example: NeuronExample | None) -> str:
    """One sentence without a full stop, or nothing for a neuron without labels."""
    clauses: dict[str, int] = {}
    for label in labels:
        clause = one(label.behaviour, example)
        clauses[clause] = max(label.rung, clauses.get(clause, 0))
    text = "; ".join(clause + SHOWN_TO_BE.get(rung, "") for clause, rung in clauses.items())
    return text[:1].upper() + text[1:]


SHOWN_TO_BE = {2: " (necessary)", 3: " (necessary and selective)"}


def one(behaviour: str, example: NeuronExample | None) -> str:
    """The clause of one label."""
    kind, _, member = behaviour.partition(":")
    if kind in CLAUSES:
        return CLAUSES[kind](example, member.replace("_", " "))
    return behaviour_of(behaviour).says


# --- clauses, by kind ---------------------------------------------------------------------------------------------


def _position(example: NeuronExample | None, member: str) -> str:
    last = max((context.position for context in _contexts(example)), default=ROUND[-1])
    within = next((edge for edge in ROUND if last < edge), None)
    return "tells where in the text it is" + (f": strongest within the first {within} tokens" if within else "")


def _token_class(example: NeuronExample | None, member: str) -> str:
    sort = in_common([context.tokens[context.at] for context in _contexts(example)])
    return "responds to the sort of token" + (f": strongest on {sort}" if sort else "")


def _alphabet(example: NeuronExample | None, member: str) -> str:
    first = {context.tokens[context.at].strip()[:1].casefold() for context in _contexts(example)}
    letter = next(iter(first)) if len(first) == 1 else ""
    return "responds to the letter that a token begins with" + (f": strongest on {letter}" if letter.isalpha() else "")


def _detector(example: NeuronExample | None, member: str) -> str:
    tokens = dict.fromkeys(visible(context.tokens[context.at].strip()) for context in _contexts(example))
    named = ", ".join(f"“{token}”" for token in tokens)
    return "fires on a few tokens and on little else" + (f": strongest on {named}" if named else "")


def _previous(example: NeuronExample | None, member: str) -> str:
    before = {context.tokens[context.at - 1].strip() for context in _contexts(example) if context.at}
    token = next(iter(before)) if len(before) == 1 else ""
    return "responds to the token before" + (f": strongest after “{visible(token)}”" if token else "")


def _raises(example: NeuronExample | None, member: str) -> str:
    return _changed(example, "raises", "a few tokens")


def _lowers(example: NeuronExample | None, member: str) -> str:
    return _changed(example, "lowers", "a few tokens")


def _changed(example: NeuronExample | None, verb: str, otherwise: str) -> str:
    changed = () if example is None else example.raised if verb == "raises" else example.lowered
    sort = in_common([token for token, _ in changed])
    named = ", ".join(f"“{visible(token.strip())}”" for token, _ in changed[:SHOWN])
    return f"{verb} {sort or named or otherwise}"


def _says(text: str) -> Callable[[NeuronExample | None, str], str]:
    return lambda example, member: text.format(member=member)


#: kind of neuron -> its clause, given where the neuron is strongest and the member of a family
CLAUSES: dict[str, Callable[[NeuronExample | None, str], str]] = {
    "position_neuron": _position,
    "token_class_neuron": _token_class,
    "alphabet_neuron": _alphabet,
    "token_detector": _detector,
    "token_neuron": _says("responds to single common tokens"),
    "previous_token_neuron": _previous,
    "domain_neuron": _says("tells {member} from other text"),
    "dead_neuron": _says("never fires on this text"),
    "skill": _says("tells {member} from other text"),
    "concept": _says("tells {member}"),
    "prediction": _raises,
    "suppression": _lowers,
    "partition": _says("raises a part of the vocabulary and lowers the rest"),
    "entropy": _says("sets how certain predictions are"),
    "token_frequency": _says("moves predictions along how frequent tokens are"),
    "agreement": _says("keeps verbs in agreement with their subjects"),
}


# --- what tokens have in common -----------------------------------------------------------------------------------


def in_common(tokens: Sequence[str]) -> str:
    """What all of these tokens are, in a word; nothing if they are too few or have nothing in common.

    >>> in_common([" 12", "7", "2004"]), in_common([" the", "The", " THE"]), in_common([" the", "7", "."])
    ('digits', '“the”', '')
    """
    texts = [token.strip() for token in tokens]
    if len(texts) < LEAST:
        return ""
    same = {text.casefold() for text in texts}
    if len(same) == 1 and "" not in same:
        return f"“{visible(same.pop())}”"
    return next((name for name, holds in SORTS.items() if all(holds(text) for text in texts)), "")


def _is_mark(text: str) -> bool:
    return bool(text) and not any(letter.isalnum() for letter in text)


#: what tokens without the blanks around them may all be, the narrowest first
SORTS: dict[str, Callable[[str], bool]] = {
    "blanks": lambda text: not text,
    "digits": lambda text: bool(text) and all(letter.isnumeric() for letter in text),
    "capitals": lambda text: len(text) > 1 and text.isupper(),
    "capitalised words": lambda text: text[:1].isupper(),
    "punctuation and signs": _is_mark,
}


def _contexts(example: NeuronExample | None) -> Sequence[Context]:
    """Contexts, if there are enough of them to say what they have in common."""
    return () if example is None or len(example.contexts) < LEAST else example.contexts
