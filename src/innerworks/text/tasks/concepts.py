"""Sentences of which it is known what they hold: a colour, a country, a plural, a verb in the past, a negation.

1. Classes of words: each word of each class in the same frames; the words of one class stand against those of all others. A
   unit is a word. Half of the words of each class discover and the other half confirm, in frames of their own: what knows but
   some words, or a frame, fails.
2. Forms: *the dog* and *the dogs*, *walk* and *walked*. A unit is a noun or a verb, in both forms.
3. Negation: *not* against *now*, *without* against *with*, in sentences that either fits into. A unit is the pair; each half has
   other pairs, so that what knows but one negator fails.

Up to the word in question all sentences of a frame are alike, so that only from there on anything can tell. All sentences and
lists are our own, and English; words of several tokens are fine. What this does not do: say that a class is one concept to the
model.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from innerworks.stats import CONSTANTS, Half, deal_halves
from innerworks.text.tasks.pairs import encoded, unknown

CLASSES = {
    "colour": (
        "red blue green yellow orange purple pink brown black white gray violet crimson turquoise scarlet beige maroon "
        "indigo magenta teal golden silver tan lavender"
    ),
    "animal": (
        "dog cat horse cow tiger lion elephant rabbit wolf fox bear monkey snake eagle whale dolphin shark goat sheep "
        "pig camel frog owl deer"
    ),
    "country": (
        "France Germany Spain Italy China Japan India Brazil Canada Mexico Russia Egypt Kenya Norway Sweden Poland "
        "Greece Turkey Chile Peru Cuba Iran Vietnam Ireland"
    ),
    "name": (
        "Mary John James Susan Robert Linda David Sarah Thomas Karen Daniel Nancy Paul Laura Mark Emma George Anna "
        "Peter Julia Kevin Alice Henry Helen"
    ),
    "number": (
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty thirty forty fifty sixty ninety"
    ),
    "calendar": (
        "January February March April May June July August September October November December Monday Tuesday Wednesday "
        "Thursday Friday Saturday Sunday Christmas Easter Halloween Thanksgiving Ramadan"
    ),
    "food": (
        "bread cheese rice butter apple banana soup salad pizza pasta beef pork honey sugar potato tomato onion garlic "
        "carrot cake chocolate sausage yogurt lemon"
    ),
    "body": (
        "hand foot head arm leg knee elbow shoulder finger toe nose mouth ear eye neck chest stomach heart liver brain "
        "skin tongue wrist ankle"
    ),
    "profession": (
        "doctor teacher lawyer nurse farmer soldier engineer carpenter plumber dentist pilot baker butcher painter "
        "singer actor writer judge chef tailor waiter sailor architect mechanic"
    ),
    "emotion": (
        "anger fear joy sadness happiness love hate envy pride shame guilt grief hope despair anxiety disgust surprise "
        "jealousy excitement loneliness boredom rage delight regret"
    ),
    "clothing": (
        "shirt trousers jacket coat hat scarf dress skirt sock shoe boot glove belt sweater jeans suit tie blouse "
        "hoodie apron vest sandal slipper cap"
    ),
    "material": (
        "gold iron copper tin zinc nickel bronze steel wood glass plastic paper cotton wool silk leather rubber stone "
        "marble concrete brick clay granite nylon"
    ),
    "vehicle": (
        "car bus train truck bicycle motorcycle airplane helicopter boat ship ferry tram taxi van scooter submarine "
        "tractor ambulance yacht canoe rocket wagon jeep limousine"
    ),
    "instrument": (
        "piano guitar violin drum flute trumpet cello harp organ saxophone clarinet trombone banjo ukulele oboe tuba "
        "accordion bassoon mandolin harmonica viola fiddle lute xylophone"
    ),
}
NOUNS = (
    "dog cat horse tree house car book table chair window door river garden bird teacher student doctor farmer king "
    "friend sister brother lamp cup"
)
#: present and past
VERBS = (
    "walk walked, talk talked, work worked, play played, dance danced, laugh laughed, cook cooked, travel traveled, "
    "argue argued, pray prayed, shout shouted, study studied, jump jumped, climb climbed, rest rested, sing sang, "
    "swim swam, run ran, eat ate, sleep slept, drink drank, fight fought, speak spoke, drive drove"
)
FRAMES: dict[str, dict[Half, tuple[str, ...]]] = {
    "words": {
        "discovery": (
            "They talked about {word} all evening.",
            "I wrote {word} at the top of the page.",
            "Somebody mentioned {word} again.",
        ),
        "confirmation": (
            "She was thinking of {word} once more.",
            "We read something on {word} yesterday.",
            "He said {word} twice in a row.",
        ),
    },
    "plural": {
        "discovery": ("We saw the {word} near the wall.", "I forgot the {word} last night.", "She drew the {word} again."),
        "confirmation": ("He looked at the {word} for a while.", "They left the {word} behind.", "You know the {word} by now."),
    },
    "past": {
        "discovery": ("They often {word} together.", "On Sundays we {word} a lot.", "I usually {word} with her."),
        "confirmation": ("You never {word} alone.", "We always {word} at night.", "In the end they {word} again."),
    },
}


@dataclass(frozen=True, kw_only=True)
class Negations:
    """Pairs of words of which the first denies what the second says, and sentences that either fits into."""

    pairs: tuple[tuple[str, str], ...]
    frames: dict[Half, tuple[str, ...]]


def _negations(pairs: str, discovery: tuple[str, ...], confirmation: tuple[str, ...]) -> Negations:
    """`never always, no longer/still`: a slash stands between words where a blank is part of one."""
    both = (one.split("/") if "/" in one else one.split() for one in pairs.split(", "))
    return Negations(pairs=tuple((a, b) for a, b in both), frames={"discovery": discovery, "confirmation": confirmation})


#: twenty-four pairs; where many share a part (*n't*), neither half has so many of them that this part alone would do
NEGATIONS = (
    _negations(
        "not now, never always, hardly nearly, scarcely surely, barely clearly, rarely often, seldom usually, no longer/still",
        ("They were {word} seen together.", "The shop is {word} open.", "She was {word} at home."),
        ("We are {word} alone here.", "He was {word} ready.", "The door is {word} closed."),
    ),
    _negations(
        "cannot can, won't will, wouldn't would, couldn't could, shouldn't should, mustn't must, didn't did",
        ("The old man {word} see it.", "My friends {word} help us.", "Your sister {word} come back."),
        ("We {word} pay for that.", "The boy {word} wait.", "His friend {word} agree."),
    ),
    _negations(
        "isn't is, wasn't was",
        ("The key {word} here.", "Her coat {word} new.", "It {word} late."),
        ("The answer {word} easy.", "His car {word} old.", "All this {word} true."),
    ),
    _negations(
        "nobody everybody, nothing everything",
        ("In the end {word} was lost.", "I think {word} changed.", "To her {word} is new."),
        ("After that {word} was found.", "They say {word} helps.", "Today {word} moved."),
    ),
    _negations(
        "none all, neither both",
        ("She wants {word} of them.", "We kept {word} of these.", "I know {word} of those."),
        ("He likes {word} of us.", "You sold {word} of yours.", "They need {word} of mine."),
    ),
    _negations(
        "nowhere everywhere",
        ("He went {word} that day.", "You can find it {word} else.", "The road leads {word} now."),
        ("She slept {word} that week.", "We saw it {word} there.", "I was {word} this year."),
    ),
    _negations(
        "without with",
        ("She left {word} a word.", "We came {word} a plan.", "He works {word} a break."),
        ("They live {word} a garden.", "I drove {word} a map.", "You came {word} a friend."),
    ),
    _negations(
        "no some",
        ("There is {word} bread.", "We had {word} water.", "I saw {word} light."),
        ("You have {word} time.", "They found {word} money.", "He wants {word} help."),
    ),
)
HALVES: tuple[Half, Half] = ("discovery", "confirmation")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A word in a frame or several. group: examples of one group are compared; concept: what it holds, if that is asked about."""

    group: str
    concept: str | None
    unit: str
    half: Half
    sentences: tuple[tuple[str, str], ...]  # what stands before the word in question, and the whole


def examples(*, frames: int) -> list[Example]:
    """All examples, each in so many frames."""
    return [*_classes(frames), *_forms(frames), *_denials(frames)]


def concepts(some: list[Example]) -> dict[str, str]:
    """Concept -> the group in which it is told from others."""
    return {one.concept: one.group for one in some if one.concept is not None}


def known(tokenizer: PreTrainedTokenizerBase, some: Sequence[Example]) -> list[Example]:
    """Those without an unknown token, of concepts of which enough units are left on either half."""
    foreign = {
        (one.group, one.unit) for one in some for _, whole in one.sentences if unknown(tokenizer, encoded(tokenizer, whole))
    }
    left = [one for one in some if (one.group, one.unit) not in foreign]
    units = Counter((one.concept, one.half) for one in left)
    few = {one.concept for one in some if min(units[one.concept, half] for half in HALVES) < CONSTANTS.least_units}
    groups = {one.group for one in left if one.concept is not None and one.concept not in few}
    return [one for one in left if one.concept not in few and one.group in groups]


def first_place(tokenizer: PreTrainedTokenizerBase, before: str, whole: str) -> tuple[tuple[int, ...], int]:
    """The tokens of a sentence, and the first of them that what stands before the word does not have; never the very first."""
    tokens, known = encoded(tokenizer, whole), encoded(tokenizer, before.rstrip())
    same = next((i for i, (a, b) in enumerate(zip(tokens, known, strict=False)) if a != b), min(len(known), len(tokens) - 1))
    return tokens, max(same, 1)


def _dealt(units: Sequence[str]) -> dict[str, Half]:
    return dict(zip(units, deal_halves(units, [""] * len(units)), strict=True))


def _filled(group: str, concept: str | None, unit: str, half: Half, word: str, frames: Sequence[str]) -> Example:
    sentences = tuple((frame.partition("{word}")[0], frame.format(word=word)) for frame in frames)
    return Example(group=group, concept=concept, unit=unit, half=half, sentences=sentences)


def _classes(frames: int) -> Iterator[Example]:
    for concept, words in CLASSES.items():
        for word, half in _dealt(words.split()).items():
            yield _filled("words", concept, word, half, word, FRAMES["words"][half][:frames])


def _forms(frames: int) -> Iterator[Example]:
    for group, forms in (
        ("plural", {noun: (noun, noun + "s") for noun in NOUNS.split()}),
        ("past", {both.split()[0]: (both.split()[0], both.split()[1]) for both in VERBS.split(", ")}),
    ):
        for unit, half in _dealt(list(forms)).items():
            plain, marked = forms[unit]
            for concept, word in ((group, marked), (None, plain)):
                yield _filled(group, concept, unit, half, word, FRAMES[group][half][:frames])


def _denials(frames: int) -> Iterator[Example]:
    halves = _dealt([negative for one in NEGATIONS for negative, _ in one.pairs])
    for one in NEGATIONS:
        for negative, other in one.pairs:
            half = halves[negative]
            for concept, word in (("negation", negative), (None, other)):
                yield _filled("negation", concept, negative, half, word, one.frames[half][:frames])
