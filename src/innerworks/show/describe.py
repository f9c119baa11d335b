"""What a neuron's labels come to, in a few words, by rule.

1. Every label gives one clause: what its kind says of such a neuron (`behaviours.py`), which is what the label was tested for.
2. What stands where the neuron is strongest may make a clause narrower ("strongest on digits"), but only if *all* of these
   contexts agree, and only for a kind to which it belongs. It never makes a clause of its own: contexts illustrate, labels claim.
3. The highest rung first; a label that is shown to be necessary says so. Without a label there is nothing to say.
"""

from collections.abc import Callable, Sequence

from innerworks.atlas import Context, NeuronExample
from innerworks.show.behaviours import behaviour_of
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head

LEAST = 3  # contexts that must agree
ROUND = (4, 8, 16, 32, 64, 128, 256)  # tokens, of what lies at the beginning of a text
SHOWN = 4  # tokens named
CAUSAL = {2: " (necessary)", 3: " (necessary and selective)"}  # by rung


def described(labels: Sequence[Head], example: NeuronExample | None) -> str:
    """One sentence without a full stop, or nothing for a neuron without labels."""
    clauses = [clause(label.behaviour, example) + CAUSAL.get(label.rung, "") for label in labels]
    text = "; ".join(dict.fromkeys(clauses))
    return text[:1].upper() + text[1:]


def clause(behaviour: str, example: NeuronExample | None) -> str:
    """What one label says, and what its contexts add to that."""
    narrower = NARROWER.get(behaviour.partition(":")[0])
    added = narrower(example) if narrower is not None and example is not None else ""
    return behaviour_of(behaviour).says + (f": {added}" if added else "")


# --- what makes a clause narrower, by kind -------------------------------------------------------------------------


def _position(example: NeuronExample) -> str:
    last = max((context.position for context in _contexts(example)), default=ROUND[-1])
    within = next((edge for edge in ROUND if last < edge), None)
    return f"strongest within the first {within} tokens" if within else ""


def _token_class(example: NeuronExample) -> str:
    sort = in_common([context.tokens[context.at] for context in _contexts(example)])
    return f"strongest on {sort}" if sort else ""


def _alphabet(example: NeuronExample) -> str:
    first = {context.tokens[context.at].strip()[:1].casefold() for context in _contexts(example)}
    return f"strongest on {first.pop()}" if len(first) == 1 and "".join(first).isalpha() else ""


def _tokens(example: NeuronExample) -> str:
    tokens = dict.fromkeys(context.tokens[context.at].strip() for context in _contexts(example))
    return f"strongest on {_named(list(tokens))}" if tokens else ""


def _pairs(example: NeuronExample) -> str:
    found = [context for context in _contexts(example) if context.at]
    pairs = dict.fromkeys("".join(context.tokens[context.at - 1 : context.at + 1]).strip() for context in found)
    return f"strongest on {_named(list(pairs))}" if pairs else ""


def _previous(example: NeuronExample) -> str:
    before = {context.tokens[context.at - 1].strip() for context in _contexts(example) if context.at}
    return f"strongest after {_named(list(before))}" if len(before) == 1 else ""


def _raised(example: NeuronExample) -> str:
    return _changed([token for token, _ in example.raised])


def _lowered(example: NeuronExample) -> str:
    return _changed([token for token, _ in example.lowered])


def _changed(tokens: Sequence[str]) -> str:
    return in_common(tokens) or _named([token.strip() for token in tokens[:SHOWN]])


def _named(tokens: Sequence[str]) -> str:
    return ", ".join(f"“{visible(token)}”" for token in tokens)


#: kind of neuron -> what its contexts, or the tokens that it changes, may add to its clause
NARROWER: dict[str, Callable[[NeuronExample], str]] = {
    "position_neuron": _position,
    "token_class_neuron": _token_class,
    "alphabet_neuron": _alphabet,
    "token_neuron": _tokens,
    "token_detector": _tokens,
    "pair_detector": _pairs,
    "previous_token_neuron": _previous,
    "prediction": _raised,
    "suppression": _lowered,
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


def _contexts(example: NeuronExample) -> Sequence[Context]:
    """Contexts, if there are enough of them to say what they have in common."""
    return example.contexts if len(example.contexts) >= LEAST else ()
