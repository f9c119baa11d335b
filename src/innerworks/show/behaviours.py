"""The kinds of part as a reader meets them: title, explanation, citation, colour and mark.

Names, titles and sources agree with the instruments that measure them (`heads/kinds.py`; a test checks it), but are
written down here: an atlas is shown without torch. Colours keep apart for colour-blind eyes, on light and dark ground;
each behaviour also has a shape.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one kind of part is shown."""

    name: str
    title: str
    says: str  # what such a part does, after "it"
    meaning: str  # why anyone cares, in one or two sentences
    source: str
    colour: str
    mark: str  # a plotly symbol
    quiet: bool = False  # so common that it stands behind the others

    @property
    def singular(self) -> str:
        """As in "no induction head"."""
        return "head that rests on the first token" if self.name == "first_token" else f"{self.title.replace(' ', '-')} head"

    @property
    def plural(self) -> str:
        """As in "17 induction heads"."""
        return "heads that rest on the first token" if self.name == "first_token" else f"{self.singular}s"

    @property
    def link(self) -> str | None:
        """Where the cited paper can be read."""
        found = re.search(r"arXiv:(\d{4}\.\d{4,5})", self.source)
        return f"https://arxiv.org/abs/{found[1]}" if found else None


#: In the order in which they are told, the most telling first.
BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.name: behaviour
    for behaviour in (
        Behaviour(
            name="induction",
            title="induction",
            says="looks at what followed the current token last time",
            meaning="Having read “Ada Lovelace … Ada”, such a head looks back at “Lovelace”. It lets a model go on "
            "with whatever began earlier in its text, and is thought to carry much of learning from context.",
            source="Olsson et al. 2022, arXiv:2209.11895",
            colour="#D1571F",
            mark="diamond",
        ),
        Behaviour(
            name="duplicate_token",
            title="duplicate token",
            says="looks at earlier copies of the current token",
            meaning="At the second “Mary” of a text such a head looks at the first one. It marks what has been "
            "mentioned before, which later heads use, for instance to tell who has already been named.",
            source="Wang et al. 2022, arXiv:2211.00593",
            colour="#12906A",
            mark="square",
        ),
        Behaviour(
            name="previous_token",
            title="previous token",
            says="looks one token back, whatever stands there",
            meaning="It tells each position what stood just before it. Induction heads are built on such a head in an "
            "earlier layer.",
            source="Voita et al. 2019, arXiv:1905.09418",
            colour="#2F7EC0",
            mark="circle",
        ),
        Behaviour(
            name="current_token",
            title="current token",
            says="looks at the token itself",
            meaning="It looks at its own position more than at any other nearby. As far as it does, it works like a small "
            "feed-forward layer.",
            source="Voita et al. 2019, arXiv:1905.09418",
            colour="#A860A8",
            mark="triangle-up",
        ),
        Behaviour(
            name="subword_joiner",
            title="subword joiner",
            says="looks at earlier pieces of the same word",
            meaning="Tokenizers cut long and rare words into pieces. At a later piece such a head looks at the earlier ones, so "
            "that the word can be known as a whole; elsewhere it looks no further back than others.",
            source="Correia et al. 2019, arXiv:1909.00015",
            colour="#8F4FBF",
            mark="hexagon2",
        ),
        Behaviour(
            name="punctuation",
            title="punctuation",
            says="looks at earlier punctuation",
            meaning="Commas and full stops mark where clauses end; models also use them as places to rest, or to gather what a "
            "sentence said.",
            source="Clark et al. 2019, arXiv:1906.04341",
            colour="#5F7A2E",
            mark="x",
        ),
        Behaviour(
            name="offset_2",
            title="two back",
            says="looks two tokens back, whatever stands there",
            meaning="A fixed distance, whatever the content: like a previous-token head, one step further.",
            source="Voita et al. 2019, arXiv:1905.09418",
            colour="#B08000",
            mark="pentagon",
        ),
        Behaviour(
            name="offset_3",
            title="three back",
            says="looks three tokens back, whatever stands there",
            meaning="A fixed distance, whatever the content: like a previous-token head, two steps further.",
            source="Voita et al. 2019, arXiv:1905.09418",
            colour="#7A76D0",
            mark="star",
        ),
        Behaviour(
            name="first_token",
            title="first token (sink)",
            says="rests on the first token, and on no other fixed place",
            meaning="Attention must add up to one, so a head with nothing to do leaves it on the first token, where "
            "it does no harm. Common in most models; a head may rest there on most tokens and still work on some.",
            source="Xiao et al. 2023, arXiv:2309.17453",
            colour="#7F8891",
            mark="square",
            quiet=True,
        ),
    )
}

#: rung -> the word for what is shown
RUNGS = {0: "measured", 1: "seen", 2: "necessary", 3: "selective"}

#: measure -> how it is called
MEASURES = {
    "attention": "attention",
    "attention_across": "attention, against the same offsets across words",
    "attention_far": "attention to pieces that are no neighbour",
    "sink_contrast": "rest on the first token that gives way",
    "harm": "harm alone",
    "joint_harm": "harm jointly",
    "marginal_harm": "its share of the joint harm",
    "collateral": "harm elsewhere",
}

#: what is read off patterns; every other measure is of an ablation
SEEN = ("attention", "attention_across", "attention_far", "sink_contrast")
DECIDES = ("attention", "attention_across")  # of those, what a label must pass

#: material -> how it is called
MATERIALS = {"text": "real text", "random": "random tokens"}


def word(name: str) -> str:
    """How a material or measure is called on the page."""
    return MATERIALS.get(name) or MEASURES.get(name) or name.replace("_", " ")


def behaviour_of(name: str) -> Behaviour:
    """How a behaviour is shown; one that this table does not know yet is shown plainly, under its own name."""
    known = BEHAVIOURS.get(name)
    title = name.replace("_", " ")
    return known or Behaviour(name=name, title=title, says=title, meaning="", source="", colour="#8A6D5A", mark="hexagon")


def in_order(names: list[str]) -> list[Behaviour]:
    """Known behaviours in the order of the table, then the others by name; each once."""
    order = list(BEHAVIOURS)
    return [behaviour_of(name) for name in sorted(set(names), key=lambda n: (order.index(n) if n in order else len(order), n))]
