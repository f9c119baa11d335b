"""The kits of neurons: the kinds that the literature names, each beside a decoy, and the heads that some of them read.

NEURONS has a language in which neurons have a use (`followers`) and an unembedding like a trained one (`embeddings`, 4). RELU has
an activation that can be exactly zero, and so neurons that are dead.

What is called necessary is what the phantom's predictions depend on: what knows the first positions, three triggers, the word
before; what makes frequent tokens likelier and predictions less certain. The others write where next to nothing reads.
What writes a code where the unembedding reads raises some tokens and lowers others: it is a partition neuron, too.

Random neurons must be nothing that has a name: they know the current word and, by a helper head, the one five before it, each by
half; no letters, marks, roles or positions.
"""

from torch import Tensor

from innerworks.phantoms import followers, neuron_parts, parts
from innerworks.phantoms.kit import Kit, Materials, NeuronPart, Part
from innerworks.phantoms.neurons import Neurons
from innerworks.phantoms.stream import size
from innerworks.phantoms.words import CONSONANTS, VOWELS, Vocabulary

LOGIT = 9.0  # that an ending gains where it is called for: from 5e-5 to about .3
UNTIL = 24  # how far the neuron near the start fires
BEGINS, WIDE = (30, 60), (24, 40)  # of a range of positions: its first, and how many it has; from and below
FARTHER = (48, 72)  # in Llama, how far another neuron near the start fires
CONTEXT_AT = 5  # how far back the word stands that random neurons know beside the current one: no kind asks for it
LOUD, BESIDE = 16.0, 8.0  # norms of what the decoys in the last layer write


def _ending(m: Materials, name: str) -> Tensor:
    """What makes an ending likely."""
    return neuron_parts.word(m.stream, m.codes[followers.ending_ids(m.vocabulary)[name]], logit=LOGIT)


def _any_word(m: Materials, name: str, norm: float) -> Tensor:
    """What moves logits at random."""
    return norm / size("output") * m.stream.write("output") @ m.any_code(name)


def _mark(m: Materials, name: str, mark: str) -> Neurons:
    return neuron_parts.one_token(m.stream, m.codes[m.vocabulary.tokens.index(mark)], writes=m.aside(name))


def _single(m: Materials) -> Neurons:
    code = m.code(followers.Lexicon.of(m.vocabulary).single)
    return neuron_parts.one_token(m.stream, code, writes=m.aside("single"))


def letter(m: Materials, name: str) -> str:
    """The consonant of the alphabet neuron, and that of its decoy."""
    first = m.between("letter", 0, len(CONSONANTS))
    return CONSONANTS[(first + ("alphabet", "half_letter").index(name)) % len(CONSONANTS)]


def _letter(m: Materials, name: str) -> int:
    return sorted(CONSONANTS + VOWELS).index(letter(m, name))


def positions(m: Materials) -> tuple[int, int]:
    """The first and the last position of the range; in Llama, which cannot know one, of another stretch from the start."""
    if m.stream.architecture == "llama":
        return 1, m.between("farther", *FARTHER)
    first = m.between("begins", *BEGINS)
    return first, first + m.between("wide", *WIDE) - 1


def _range(m: Materials) -> Neurons:
    first, last = positions(m)
    if m.stream.architecture == "llama":
        return neuron_parts.near_start(m.stream, last, writes=m.aside("range"))
    return neuron_parts.between(m.stream, first, last, writes=m.aside("range"))


def _foretold(vocabulary: Vocabulary) -> list[int]:
    return [vocabulary.particle_id, *followers.ending_ids(vocabulary).values()]


NEAR_FIRST = Part(
    name="near_first",
    make=lambda m: parts.near_first(m.stream),
    behaviours=("first_token",),
    helper=True,
    necessary=True,
)
PASS_ROLE = Part(
    name="pass_role",
    make=lambda m: parts.pass_role(m.stream, "calls"),
    behaviours=("previous_token",),
    helper=True,
    necessary=True,
)

CONTEXT = Part(
    name="context",
    make=lambda m: parts.pass_on(m.stream, CONTEXT_AT, into="before"),
    helper=True,
    at_once=True,
)

NEURONS = Kit(
    name="neurons",
    says="neurons that know the position, one letter, three tokens or one, the token before, and that make frequent tokens "
    "likelier or predictions less certain",
    parts=(CONTEXT, NEAR_FIRST, PASS_ROLE),
    neurons=(
        NeuronPart(
            name="near_start",
            make=lambda m: neuron_parts.near_start(m.stream, UNTIL, writes=_ending(m, "placed")),
            behaviours=("position_neuron", "partition"),
            necessary=True,
            reads="near_first",
        ),
        NeuronPart(name="range", make=_range, behaviours=("position_neuron",), reads="near_first"),
        NeuronPart(
            name="comma", make=lambda m: _mark(m, "comma", ","), behaviours=("token_detector", "token_neuron"), decoy=True
        ),
        NeuronPart(
            name="alphabet",
            make=lambda m: neuron_parts.of_letter(m.stream, _letter(m, "alphabet"), writes=m.aside("alphabet")),
            behaviours=("alphabet_neuron",),
        ),
        NeuronPart(
            name="half_letter",
            make=lambda m: neuron_parts.half_of_letter(
                m.stream, _letter(m, "half_letter"), code=m.any_code("half_letter"), writes=m.aside("half_letter")
            ),
            behaviours=("alphabet_neuron",),
            decoy=True,
        ),
        NeuronPart(
            name="many_words",
            make=lambda m: neuron_parts.leaning(m.stream, code=m.any_code("many_words"), writes=m.aside("many_words")),
            decoy=True,
        ),
        NeuronPart(
            name="triggers",
            make=lambda m: neuron_parts.of_role(m.stream, "trigger", writes=_ending(m, "triggered")),
            behaviours=("token_detector", "token_neuron", "partition"),
            necessary=True,
        ),
        NeuronPart(name="single", make=_single, behaviours=("token_detector", "token_neuron")),
        NeuronPart(
            name="previous_token",
            make=lambda m: neuron_parts.after_role(m.stream, writes=_ending(m, "called")),
            behaviours=("previous_token_neuron", "partition"),
            necessary=True,
            reads="pass_role",
        ),
        NeuronPart(
            name="current_word",
            make=lambda m: neuron_parts.of_role(m.stream, "calls", writes=m.aside("current_word")),
            behaviours=("token_neuron",),
            decoy=True,
        ),
        NeuronPart(
            name="token_frequency",
            make=lambda m: neuron_parts.of_role(m.stream, "plain", writes=neuron_parts.frequent(m.stream, followers.SHARPENED)),
            behaviours=("token_frequency",),
            necessary=True,
            last=True,
        ),
        NeuronPart(
            name="other_logits",
            make=lambda m: neuron_parts.of_role(m.stream, "plain", writes=_any_word(m, "other_logits", BESIDE)),
            behaviours=("partition",),
            decoy=True,
            last=True,
        ),
        NeuronPart(
            name="entropy",
            make=lambda m: neuron_parts.of_role(m.stream, "vague", writes=neuron_parts.unread(m.stream)),
            behaviours=("entropy",),
            necessary=True,
            last=True,
        ),
        NeuronPart(
            name="loud",
            make=lambda m: neuron_parts.of_role(m.stream, "calls", writes=_any_word(m, "loud", LOUD)),
            behaviours=("token_neuron", "partition"),
            decoy=True,
            last=True,
        ),
    ),
    roles=followers.roles,
    foretold=_foretold,
    write=followers.write_followers,
    reads_everything=True,
    depth="standard",
)

RELU = Kit(
    name="relu",
    says="neurons that never fire, with an activation that can be zero",
    parts=(CONTEXT,),
    neurons=(
        *(
            NeuronPart(
                name=name,
                make=lambda m, name=name: neuron_parts.dead(m.stream, writes=m.aside(name)),
                behaviours=("dead_neuron",),
            )
            for name in ("dead_1", "dead_2", "dead_3")
        ),
        NeuronPart(name="rare", make=lambda m: _mark(m, "rare", "*"), behaviours=("token_detector",), decoy=True),
    ),
    activation="relu",
)
