"""Which parts go into one phantom? The kits, and the heads in them; neurons are in `neuron_kits`.

One phantom has no room for every kind: a decoy of one kind may be another kind itself. So there are kits, and `build` makes a
phantom of one of them.
"""

from innerworks.errors import UsageError, near_misses
from innerworks.phantoms import parts, sentences
from innerworks.phantoms.kernels import only, window
from innerworks.phantoms.kit import Kit, Materials, Part
from innerworks.phantoms.neuron_kits import NEURONS, RELU
from innerworks.phantoms.parts import Head
from innerworks.phantoms.words import PUNCTUATION, SPACE, SPECIAL, Language, Vocabulary

PREDICTED = 0.5  # of a unit code: how strongly it predicts; times 9 logits
ENHANCED = 0.3  # what the decoy that looks at what is predicted adds to it


def _pieces(vocabulary: Vocabulary) -> dict[int, str]:
    """Does a token begin a word, or go on with it? Marks and the like do neither."""
    neither = {*SPECIAL, *PUNCTUATION, SPACE}
    return {
        token: "begins" if text.startswith(SPACE) else "continues"
        for token, text in enumerate(vocabulary.tokens)
        if text not in neither
    }


def _ordinals(vocabulary: Vocabulary) -> dict[int, str]:
    """Which tokens do lists count?"""
    return {token: "ordinal" for one in vocabulary.ordered for token in one}


def _local_window(m: Materials) -> Head:
    return parts.local_window(m.stream)


def _fixed_gap(m: Materials) -> Head:
    return parts.fixed_gap(m.stream, m.gap)


PATTERNS = Kit(
    name="patterns",
    says="an induction head and the previous-token head that it needs, another that nothing needs, a duplicate-token head, a "
    "sink and a punctuation head",
    parts=(
        Part(
            name="pair_previous",
            make=lambda m: parts.previous_token(m.stream, m.amplitude, into="previous", loudness=m.loudness),
            behaviours=("previous_token",),
            necessary=True,
        ),
        Part(
            name="induction",
            make=lambda m: parts.induction(m.stream, m.amplitude),
            behaviours=("induction", "copying"),
            necessary=True,
        ),
        Part(
            name="lone_previous",
            make=lambda m: parts.previous_token(m.stream, m.amplitude, into="scratch", loudness=0.5),
            behaviours=("previous_token",),
        ),
        Part(
            name="duplicate_token",
            make=lambda m: parts.duplicate_token(m.stream, m.amplitude, particle=m.particle),
            behaviours=("duplicate_token",),
            necessary=True,
        ),
        Part(name="first_token", make=lambda m: parts.sink(m.stream, m.amplitude), behaviours=("first_token",)),
        Part(name="fixed_gap", make=_fixed_gap, decoy=True),
        Part(name="punctuation", make=lambda m: parts.punctuation(m.stream), behaviours=("punctuation",)),
        Part(name="local_window", make=_local_window, decoy=True),
        Part(name="same_first_letter", make=lambda m: parts.same_first_letter(m.stream), decoy=True),
    ),
    chain=("pair_previous", "induction"),
)

OFFSETS = Kit(
    name="offsets",
    says="heads at the current token, two and three back, and a subword joiner",
    parts=(
        Part(name="current_token", make=lambda m: parts.offset(m.stream, m.amplitude, 0), behaviours=("current_token",)),
        Part(name="offset_2", make=lambda m: parts.offset(m.stream, m.amplitude, 2), behaviours=("offset_2",)),
        Part(name="offset_3", make=lambda m: parts.offset(m.stream, m.amplitude, 3), behaviours=("offset_3",)),
        Part(
            name="subword_joiner",
            make=lambda m: parts.joiner(m.stream, m.amplitude, particle=m.particle),
            behaviours=("subword_joiner",),
            necessary=True,
        ),
        Part(
            name="one_back_anywhere",
            make=lambda m: parts.offset(m.stream, 1.0, 1),
            behaviours=("previous_token",),
            decoy=True,
        ),
        Part(name="one_or_two_back", make=lambda m: parts.band_of_offsets(m.stream, 1, 2), decoy=True),
        Part(name="local_window", make=_local_window, decoy=True),
        Part(name="fixed_gap", make=_fixed_gap, decoy=True),
    ),
    language=Language(particle="joined", suffix=(0.15, 0.4), longest=2),
    sorts=_pieces,
)

WRITING = Kit(
    name="writing",
    says="a copying head, an anti-copying one, one that suppresses what the first predicts, and a successor head",
    parts=(
        Part(
            name="copying",
            make=lambda m: parts.writer(m.stream, window(8), turn=0.3, amplitude=m.amplitude),
            behaviours=("copying",),
        ),
        Part(
            name="copier_at_a_gap",
            make=lambda m: parts.writer(m.stream, only(m.lag), turn=PREDICTED),
            behaviours=("copying",),
            decoy=True,
        ),
        Part(
            name="copier_of_predicted",
            make=lambda m: parts.about_to_be_predicted(m.stream, 1.0, predicted=PREDICTED, turn=ENHANCED),
            behaviours=("copying",),
            decoy=True,
        ),
        Part(
            name="copy_suppression",
            make=lambda m: parts.about_to_be_predicted(
                m.stream, m.amplitude, predicted=PREDICTED + ENHANCED, turn=-PREDICTED - ENHANCED
            ),
            behaviours=("copy_suppression", "anti_copying"),
            necessary=True,
        ),
        Part(
            name="anti_copying",
            make=lambda m: parts.writer(m.stream, window(8), turn=-0.3, amplitude=m.amplitude),
            behaviours=("anti_copying",),
        ),
        Part(
            name="successor",
            make=lambda m: parts.counting(m.stream, m.amplitude, step="after", turn=m.turn("after")),
            behaviours=("successor",),
            necessary=True,
        ),
        Part(
            name="predecessor",
            make=lambda m: parts.counting(m.stream, 1.0, step="before", turn=0.3 * m.turn("before")),
            decoy=True,
        ),
        Part(name="same_vector", make=lambda m: parts.same_vector(m.stream, m.lag, code=0.2 * m.particle), decoy=True),
        Part(
            name="other_codes",
            make=lambda m: parts.writer(m.stream, window(8), turn=0.2 * m.turn("other")),
            decoy=True,
        ),
    ),
    chain=("copier_at_a_gap", "copier_of_predicted", "copy_suppression"),
    language=Language(lists=True),
    sorts=_ordinals,
    foretold=lambda vocabulary: [],
    room=32,
    depth="standard",
)

SENTENCES = Kit(
    name="sentences",
    says="heads that look from a verb at its subject and from an object at its verb, and one that serves one domain",
    parts=(
        Part(
            name="subject",
            make=lambda m: parts.agreement(m.stream, m.amplitude, one=m.ending("one"), many=m.ending("many")),
            behaviours=("syntactic:nsubj<",),
            necessary=True,
        ),
        Part(
            name="object",
            make=lambda m: parts.looks_up(m.stream, m.amplitude, asks="thing", finds="verb"),
            behaviours=("syntactic:obj",),
        ),
        Part(name="four_back", make=lambda m: parts.offset(m.stream, 1.0, 4), decoy=True),
        Part(name="local_window", make=_local_window, decoy=True),
        Part(
            name="hill",
            make=lambda m: parts.ender(m.stream, m.amplitude, sort="hill", ending=m.ending("hill")),
            behaviours=("domain:hill",),
            necessary=True,
        ),
        Part(
            name="everywhere",
            make=lambda m: parts.ender(m.stream, 1.0, sort="common", ending=m.ending("common")),
            decoy=True,
            necessary=True,
        ),
    ),
    sorts=sentences.sorts,
    foretold=lambda vocabulary: list(sentences.ending_ids(vocabulary).values()),
    write=sentences.write_sentences,
    depth="standard",
)

KITS: dict[str, Kit] = {kit.name: kit for kit in (PATTERNS, OFFSETS, WRITING, SENTENCES, NEURONS, RELU)}


def kit_of(name: str) -> Kit:
    """Find a kit by name."""
    if name not in KITS:
        raise UsageError(f"kit={name!r}: one of {', '.join(KITS)}.{near_misses(name, KITS)}")
    return KITS[name]
