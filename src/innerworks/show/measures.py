"""What is measured of heads, as a reader meets it: how it is called, and which of four questions about a head it answers.

1. A measure of the table answers the question that is written there.
2. One that this table does not know yet is shown plainly: ablations tell what breaks, weights what is written, the rest where a
   head looks.
"""

from dataclasses import dataclass
from functools import cache

#: question -> how a head's page asks it
QUESTIONS = {
    "looks": "Where it looks",
    "writes": "What it writes",
    "breaks": "What breaks without it",
    "partners": "Its partners",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that is measured.

    decides: a label may rest on it. tries: it tells whether a label is necessary or selective (rungs 2 and 3).
    of_pair, by_pair: what it says of a head and its partner {}, seen from the head that is measured and from the partner.
    """

    title: str
    question: str
    decides: bool = False
    tries: bool = False
    of_pair: str = ""
    by_pair: str = ""


def _looks(title: str, *, decides: bool = False) -> Measure:
    return Measure(title=title, question="looks", decides=decides)


def _writes(title: str, *, decides: bool = False) -> Measure:
    return Measure(title=title, question="writes", decides=decides)


def _tries(title: str, *, of_pair: str = "", by_pair: str = "") -> Measure:
    return Measure(title=title, question="breaks", tries=True, of_pair=of_pair, by_pair=by_pair)


def _pair(title: str, of_pair: str, by_pair: str) -> Measure:
    return Measure(title=title, question="partners", of_pair=of_pair, by_pair=by_pair)


#: In the order in which they are told.
MEASURES: dict[str, Measure] = {
    "attention": _looks("attention", decides=True),
    "attention_across": _looks("attention, against the same offsets across words", decides=True),
    "attention_far": _looks("attention to pieces that are no neighbour"),
    "sink_contrast": _looks("rest on the first token that gives way"),
    "qk_circuit": _looks("what it looks for, by its weights"),
    "eigenvalue": _writes("eigenvalues of its circuit", decides=True),
    "top_k": _writes("own token among the ten most changed"),
    "succession": _writes("ordinals taken to their successors", decides=True),
    "direct_effect": _writes("direct effect in context", decides=True),
    "succession_in_context": _writes("ordinals of lists taken to their successors"),
    "through_first_mlp": _writes("successors lost without the first feed-forward"),
    "cspa": _writes("share of its effect explained by suppressing copies"),
    "harm_contrast": Measure(title="harm to this domain beyond the others", question="breaks", decides=True),
    "harm": _tries("harm alone"),
    "joint_harm": _tries("harm jointly", of_pair="was ablated jointly with {}", by_pair="was ablated jointly with {}"),
    "marginal_harm": _tries("its share of the joint harm"),
    "collateral": _tries("harm elsewhere"),
    "harm_in_domain": Measure(title="harm in each domain", question="breaks"),
    "calibration": Measure(title="calibration lost without it", question="breaks"),
    "sufficiency": Measure(
        title="brought back by it alone", question="breaks", of_pair="alone brings back a share of what is lost without it and {}"
    ),
    "k_composition": _pair(
        "match lost without it in the keys", "loses its match without {} in its keys", "carries, in the keys, the match of {}"
    ),
    "k_composition_share": _pair(
        "share of the match lost",
        "owes this share of its match to {} in its keys",
        "carries, in the keys, this share of the match of {}",
    ),
    "k_over_q": _pair(
        "match lost, keys more than queries",
        "needs {} in its keys more than in its queries",
        "is needed more in the keys than in the queries of {}",
    ),
    "path_patching": _pair(
        "path patching", "loses its match when {} is patched in its keys", "patched in the keys of {}, it moves the match"
    ),
    "q_composition": _pair(
        "match lost without it in the queries",
        "loses its match without {} in its queries",
        "carries, in the queries, the match of {}",
    ),
    "v_composition": _pair(
        "effect lost without it in the values",
        "loses its effect without {} in its values",
        "carries, in the values, the effect of {}",
    ),
    "self_repair": _pair("self-repair", "when it is lost, {} makes up for it", "makes up for the loss of {}"),
    "contribution": _writes("contribution to the right answer", decides=True),
    "ceiling": _writes("largest effect not excluded for any part"),
    "attribution": _writes("attribution of the answer"),
    "suppression": Measure(title="answers lost without their neurons", question="breaks"),
    "suppression_own": Measure(title="answers lost, own facts more than others", question="breaks"),
    "amplification": Measure(title="answers gained with their neurons doubled", question="breaks"),
    "amplification_own": Measure(title="answers gained, own facts more than others", question="breaks"),
    "beyond_agreement": Measure(title="answers lost beyond three times the harm to agreement", question="breaks"),
    "predictivity": _looks("documents told rightly by its mean", decides=True),
    "predictivity_late": _looks("documents told rightly by one late activation", decides=True),
    "average_precision": _looks("average precision for a concept", decides=True),
    "probe": _looks("concept told by a probe of one neuron"),
    "probe_gap": _looks("concept told better by sixteen neurons than by one"),
    "forcing": Measure(title="concept mentioned when its neurons are forced", question="writes"),
    "group_harm": Measure(title="harm to its own kind of text, jointly", question="breaks"),
    "variance_explained": _looks("variance explained beyond all other features", decides=True),
    "over_types": _looks("variance explained, with kinds of token in place of documents", decides=True),
    "shifted": _looks("variance that goes with the position when the text is shifted", decides=True),
    "shuffled": _looks("variance that the token before explains in shuffled text", decides=True),
    "on_triggers": _looks("firings that are on its triggers", decides=True),
    "triggers_fire": _looks("occurrences of its triggers that fire it", decides=True),
    "others_silent": _looks("occurrences of a trigger's last token behind other tokens that do not fire it", decides=True),
    "never_fires": _looks("documents in which it never fires", decides=True),
    "dead_share": _looks("neurons that never fire"),
    "near_dead_share": _looks("neurons that hardly write"),
    "distinct_tokens": _looks("different tokens at the strongest contexts"),
    "several_tokens": _looks("early neurons strongest on several tokens"),
    "early_share": _looks("token detectors in the first half of the layers"),
    "entropy_effect": Measure(title="entropy that is another without it", question="breaks", decides=True),
    "norm_mediated": Measure(title="share of it through the scale of the final norm", question="breaks"),
    "hidden_share": _writes("share written where the unembedding hardly looks"),
    "unigram_effect": Measure(
        title="distance from token frequencies that is another without it", question="breaks", decides=True
    ),
    "frequency_mediated": Measure(title="share of its effect along the frequency direction", question="breaks"),
    "frequency_cosine": _writes("how closely it follows token frequencies"),
    "share_of_layer": _writes("share of a layer's neurons"),
    "robust_z": _writes("size beyond directions drawn at random", decides=True),
    "first_token_ratio": _writes("size at the first token against a typical one elsewhere", decides=True),
    "massive_tokens": _writes("later tokens on which the stream is ten times as long"),
    "dimension_harm": Measure(title="harm beyond that of as many other dimensions", question="breaks"),
    "direction_harm": Measure(title="harm beyond that of as large a change elsewhere", question="breaks"),
    "frequency_correlation": _writes("goes with token frequency more than other dimensions do"),
    "position_correlation": _writes("goes with position more than other dimensions do"),
    "mean_cosine": _writes("cosine between tokens of different documents"),
    "owed": _writes("share of that owed to rogue dimensions"),
    "cosine_without": _writes("cosine without rogue dimensions"),
    "cosine_centred": _writes("cosine with the mean taken off"),
    "log_length": _writes("length of the stream"),
    "effective_rank": _writes("effective rank"),
    "intrinsic_dimension": _writes("intrinsic dimension"),
}

CAUSAL = tuple(name for name, measure in MEASURES.items() if measure.tries)

#: material -> how it is called, and how one says that something is so there
MATERIALS = {
    "text": ("real text", "on real text"),
    "random": ("random tokens", "on random tokens"),
    "weights": ("weights", "by its weights"),
    "lists": ("ordinal lists", "on ordinal lists"),
    "concepts": ("sentences with concepts", "on sentences with concepts"),
    "generated text": ("generated text", "in generated text"),
}


@cache
def measure_of(name: str, *, behaviour: str = "", material: str = "", ablation: str = "none") -> Measure:
    """How a measure is shown, known or not."""
    if behaviour.startswith("composition"):
        by = {"q": "queries", "k": "keys", "v": "values"}.get(behaviour.partition(":")[2], "reading")
        return _pair(f"composition through {by}", f"reads {{}} in its {by}", f"is read by {{}} in its {by}")
    known = MEASURES.get(name)
    if known is not None:
        return known
    question = "breaks" if ablation != "none" else "writes" if material == "weights" else "looks"
    title = name.replace("_", " ")
    return Measure(title=title, question=question, of_pair=f"{title}, with {{}}", by_pair=f"{title}, with {{}}")


def word(name: str) -> str:
    """How a material or measure is called on the page."""
    if name in MATERIALS:
        return MATERIALS[name][0]
    return MEASURES[name].title if name in MEASURES else name.replace("_", " ")


def where(material: str) -> str:
    """How one says that something is so on a material: `on real text`, `by its weights`."""
    return MATERIALS[material][1] if material in MATERIALS else f"on {word(material)}"
