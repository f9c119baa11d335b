"""The kinds of part as a reader meets them: title, explanation, citation, colour and mark.

Names, titles and sources agree with the instruments that measure them (`heads/kinds.py`; a test checks it), but are
written down here: an atlas is shown without torch. Colours keep apart for colour-blind eyes, on light and dark ground;
each behaviour also has a shape.
"""

import re
from dataclasses import dataclass, replace
from functools import cache


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
    names: tuple[str, str] | None = None  # one head, several heads, where they are not called after the title
    members: tuple[str, str] | None = None  # of a family: what its members are called, one and several
    family: str = ""  # the family it belongs to, if any
    told: bool = False  # a fact about heads, pairs or layers, and no label

    @property
    def singular(self) -> str:
        """As in "no induction head"."""
        return self.names[0] if self.names else f"{self.title.replace(' ', '-')} head"

    @property
    def plural(self) -> str:
        """As in "17 induction heads"."""
        return self.names[1] if self.names else f"{self.singular}s"

    @property
    def kin(self) -> str:
        """What it is told together with: its family, or itself."""
        return self.family or self.name

    @property
    def link(self) -> str | None:
        """Where the cited paper can be read."""
        found = re.search(r"arXiv:(\d{4}\.\d{4,5})", self.source)
        page = re.search(r"transformer-circuits\.pub/[\w/.-]*\w", self.source)
        return f"https://arxiv.org/abs/{found[1]}" if found else f"https://{page[0]}" if page else None


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
            name="copying",
            title="copying",
            says="raises the token it looks at",
            meaning="Whatever such a head reads, it makes more likely to come next: by its weights, beyond circuits put together "
            "from parts that do not belong to one head, and on real text. Induction heads copy what they find.",
            source="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
            colour="#C2407F",
            mark="triangle-down",
        ),
        Behaviour(
            name="anti_copying",
            title="anti-copying",
            says="lowers the token it looks at",
            meaning="The opposite of copying: what such a head reads becomes less likely to come next.",
            source="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
            colour="#4C6FBF",
            mark="triangle-left",
        ),
        Behaviour(
            name="copy_suppression",
            title="copy suppression",
            says="looks for a token that is about to be predicted and stood in the text before, and lowers it",
            meaning="It keeps a model from repeating what it has read with too much confidence; without it, predictions are "
            "less well calibrated.",
            source="McDougall et al. 2023, arXiv:2310.04625",
            colour="#7A4B32",
            mark="bowtie",
        ),
        Behaviour(
            name="successor",
            title="successor",
            says="turns an ordinal into the next one",
            meaning="Monday becomes Tuesday, one becomes two: the same head does it for days, months, numbers and letters, "
            "reading a structure that the first feed-forward layer makes.",
            source="Gould et al. 2023, arXiv:2312.09230",
            colour="#0E8CA8",
            mark="cross",
        ),
        Behaviour(
            name="syntactic",
            title="syntactic relations",
            says="finds the word that stands in a grammatical relation to the current one",
            meaning="From a verb to its subject, from a noun to its article: such a head finds the right word more often than "
            "the best fixed distance does. A causal model only looks back, so each relation is tried in both directions.",
            source="Clark et al. 2019, arXiv:1906.04341",
            colour="#6A8E00",
            mark="triangle-right",
            names=("head that follows a syntactic relation", "heads that follow a syntactic relation"),
            members=("relation", "relations"),
        ),
        Behaviour(
            name="domain",
            title="domains",
            says="matters for one domain more than for all others",
            meaning="Without such a head one language, or code, is predicted worse, and other text hardly so.",
            source="Ferrando and Voita 2024, arXiv:2403.00824",
            colour="#B5562E",
            mark="diamond-wide",
            names=("head that serves a domain", "heads that serve a domain"),
            members=("domain", "domains"),
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
            names=("head that rests on the first token", "heads that rest on the first token"),
        ),
        Behaviour(
            name="attention_sink",
            title="attention sinks",
            says="rests on the first token just where its own behaviour has nothing to do",
            meaning="Does a head leave the first token when it finds what it looks for? And what makes that token a place to "
            "rest: values close to nothing there, and a stream that is huge in a few places.",
            source="Xiao et al. 2023, arXiv:2309.17453",
            colour="#66727E",
            mark="hourglass",
            told=True,
        ),
        Behaviour(
            name="massive_activation",
            title="massive activations",
            says="makes the stream huge at one place",
            meaning="A few values of the stream at the first token are hundreds of times larger than all others; heads "
            "rest there.",
            source="Sun et al. 2024, arXiv:2402.17762",
            colour="#8C6D1F",
            mark="star-square",
            told=True,
        ),
        Behaviour(
            name="composition",
            title="how heads work together",
            says="reads what an earlier head has written",
            meaning="A head reads the stream, and so what heads before it wrote there: in its queries (what it looks for), its "
            "keys (what it can be found by) or its values (what it moves). An induction head needs a previous-token head in "
            "its keys.",
            source="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
            colour="#5B5FC7",
            mark="star-diamond",
            told=True,
        ),
        Behaviour(
            name="streaming",
            title="streaming",
            says="goes on reading beyond its window",
            meaning="A model that keeps only a window of the latest tokens breaks when the first ones leave it; with a few of "
            "them kept it goes on without end.",
            source="Xiao et al. 2023, arXiv:2309.17453",
            colour="#3F8F7F",
            mark="star-triangle-up",
            told=True,
        ),
        Behaviour(
            name="agreement",
            title="agreement",
            says="keeps verbs in agreement with their subjects",
            meaning="The right number of a verb (*the keys ... are*) is owed to such a neuron, though a noun of the other number "
            "stands between.",
            source="Finlayson et al. 2021, arXiv:2106.06087",
            colour="#9C3D54",
            mark="circle",
            names=("agreement neuron", "agreement neurons"),
        ),
        Behaviour(
            name="knowledge",
            title="knowledge",
            says="carries a fact",
            meaning="Neurons to which the answer to a fact is owed, however the fact is asked for. Without them the fact is "
            "less likely; the same edits may move grammar, too.",
            source="Dai et al. 2022, arXiv:2104.08696",
            colour="#3B6E3A",
            mark="circle",
            names=("knowledge neuron", "knowledge neurons"),
            told=True,
        ),
        Behaviour(
            name="skill",
            title="kind of text",
            says="tells one kind of text from all others",
            meaning="Such a neuron is high (or low) in code, in French or in dialogue and not elsewhere, so that it alone tells "
            "what is being read.",
            source="Wang et al. 2022, arXiv:2211.07349",
            colour="#A3622A",
            mark="circle",
            names=("skill neuron", "skill neurons"),
            members=("kind of text", "kinds of text"),
        ),
        Behaviour(
            name="position_neuron",
            title="position",
            says="tells where in the text a token stands, whatever the text says",
            meaning="Such a neuron is high on a range of positions, most often the first few, in any text and in random tokens.",
            source="Voita et al. 2023, arXiv:2309.04827",
            colour="#2F6FB5",
            mark="circle",
            names=("position neuron", "position neurons"),
        ),
        Behaviour(
            name="previous_token_neuron",
            title="token before",
            says="tells which token stands before, beyond what the token itself tells",
            meaning="It needs attention to have moved the token before to here; what it writes can tell word pairs apart.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#8C4FA3",
            mark="circle",
            names=("previous-token neuron", "previous-token neurons"),
        ),
        Behaviour(
            name="alphabet_neuron",
            title="alphabet",
            says="tells the first letter of the token",
            meaning="A model never sees letters, only numbers of tokens; such a neuron has worked out how tokens are spelled.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#1E8C8C",
            mark="diamond",
            names=("alphabet neuron", "alphabet neurons"),
        ),
        Behaviour(
            name="token_class_neuron",
            title="token class",
            says="tells words, numbers, marks, capitals and the beginnings of words apart",
            meaning="What sort of token it is, whichever one: the coarsest thing that can be known of it.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#6B7F2A",
            mark="square",
            names=("token-class neuron", "token-class neurons"),
        ),
        Behaviour(
            name="token_neuron",
            title="common tokens",
            says="is explained by a few common tokens, by two thirds or more",
            meaning="Most of what it does can be told from which of the most frequent tokens stands there.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#B0652B",
            mark="square",
            names=("common-token neuron", "common-token neurons"),
        ),
        Behaviour(
            name="token_detector",
            title="token detector",
            says="fires on one to five tokens and on little else",
            meaning="A neuron that knows one word. Early layers of large models have thousands of them.",
            source="Voita et al. 2023, arXiv:2309.04827",
            colour="#C43C5C",
            mark="diamond",
            names=("token detector", "token detectors"),
        ),
        Behaviour(
            name="pair_detector",
            title="pair detector",
            says="fires on one to five pairs of neighbouring tokens and on little else",
            meaning="A neuron that knows a token by the one before, which attention must have brought here: “York” after “New”.",
            source="Voita et al. 2023, arXiv:2309.04827",
            colour="#4E7A3C",
            mark="diamond",
            names=("pair detector", "pair detectors"),
        ),
        Behaviour(
            name="dead_neuron",
            title="dead",
            says="never fires",
            meaning="With ReLU a neuron can be zero at every token; then it could be taken out without any change.",
            source="Voita et al. 2023, arXiv:2309.04827",
            colour="#5A5F66",
            mark="square",
            names=("dead neuron", "dead neurons"),
        ),
        Behaviour(
            name="polysemantic_neuron",
            title="several tokens at once",
            says="is strongest on several different tokens",
            meaning="A layer has fewer neurons than there are things to know, so that most neurons answer to several.",
            source="Gurnee et al. 2023, arXiv:2305.01610",
            colour="#9A8750",
            mark="circle",
            told=True,
        ),
        Behaviour(
            name="entropy",
            title="entropy",
            says="sets how sure the prediction is, through the scale of the final norm",
            meaning="It writes where the unembedding hardly looks. The final norm divides by the size of the whole stream, so "
            "that all logits shrink or grow together: the prediction becomes less or more certain, and its order stays.",
            source="Stolfo et al. 2024, arXiv:2406.16254",
            colour="#3D7EA6",
            mark="diamond-wide",
            names=("entropy neuron", "entropy neurons"),
        ),
        Behaviour(
            name="token_frequency",
            title="token frequency",
            says="moves the prediction towards or away from how frequent tokens are anyway",
            meaning="A model that does not know what comes next does best to say what is common. Such a neuron raises or lowers "
            "all tokens by how frequent they are.",
            source="Stolfo et al. 2024, arXiv:2406.16254",
            colour="#A65E3D",
            mark="diamond-tall",
            names=("token-frequency neuron", "token-frequency neurons"),
        ),
        Behaviour(
            name="prediction",
            title="prediction",
            says="raises a few tokens where it fires",
            meaning="A few tokens stand out of what it writes, and where it fires they become likelier: one of many small steps "
            "from what is known to what is said.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#2F855A",
            mark="triangle-up",
            names=("prediction neuron", "prediction neurons"),
        ),
        Behaviour(
            name="suppression",
            title="suppression",
            says="lowers a few tokens where it fires",
            meaning="A few tokens stand out of what it writes, and where it fires they become less likely. In many models such "
            "neurons take over in the last layers.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#B83280",
            mark="triangle-down",
            names=("suppression neuron", "suppression neurons"),
        ),
        Behaviour(
            name="partition",
            title="partition",
            says="raises one part of the vocabulary and lowers the other",
            meaning="No single token stands out of what it writes, and yet much is moved: words that begin with a space against "
            "those that do not, say.",
            source="Gurnee et al. 2024, arXiv:2401.12181",
            colour="#6B46C1",
            mark="bowtie",
            names=("partition neuron", "partition neurons"),
        ),
        Behaviour(
            name="concept",
            title="concept",
            says="responds to one concept more than to others",
            meaning="Such a neuron responds most to colours, to countries, to plurals, also to words that it was not chosen by; "
            "held high, it may make the model speak of them.",
            source="Suau et al. 2020, arXiv:2005.07647",
            colour="#2E7F86",
            mark="circle",
            names=("concept neuron", "concept neurons"),
            members=("concept", "concepts"),
        ),
        Behaviour(
            name="rogue_dimension",
            title="rogue dimensions",
            says="is far larger than all other dimensions of the stream, on ordinary tokens",
            meaning="The stream has hundreds of dimensions, and nothing in a transformer's arithmetic says that one should be "
            "larger than another. In many models a few are, by far, on almost every token.",
            source="Kovaleva et al. 2021, arXiv:2105.06990",
            colour="#A4343A",
            mark="diamond-tall",
            names=("rogue dimension", "rogue dimensions"),
            told=True,
        ),
        Behaviour(
            name="massive_dimension",
            title="massive dimensions",
            says="is huge at the first token",
            meaning="Where the stream of the first token is huge, a few dimensions hold nearly all of it. They need not be large "
            "anywhere else, and then are no rogue dimensions.",
            source="Sun et al. 2024, arXiv:2402.17762",
            colour="#7B5D14",
            mark="star",
            names=("massive dimension", "massive dimensions"),
            told=True,
        ),
        Behaviour(
            name="anisotropy",
            title="anisotropy",
            says="makes all tokens alike",
            meaning="Tokens of different documents point the same way, as if all lay in a narrow cone. A few rogue dimensions "
            "can do that by themselves: without them, or with the mean taken off, tokens may be as different as one expects.",
            source="Ethayarajh 2019, arXiv:1909.00512",
            colour="#3C6E91",
            mark="triangle-up",
            told=True,
        ),
        Behaviour(
            name="stream_shape",
            title="the shape of the stream",
            says="spreads over so many dimensions",
            meaning="How long the stream is, and over how many dimensions its tokens spread: the participation ratio of its "
            "covariance, and the number of dimensions that the distances between neighbours suggest.",
            source="Facco et al. 2017, arXiv:1803.06992",
            colour="#4F7D5B",
            mark="hexagon2",
            told=True,
        ),
    )
}

#: Universal Dependencies relation -> what the dependent is called
RELATIONS = {
    "acl": "clause about a noun",
    "advcl": "adverbial clause",
    "advmod": "adverb",
    "amod": "adjective",
    "appos": "apposition",
    "aux": "auxiliary",
    "case": "preposition",
    "cc": "“and” or “or”",
    "ccomp": "clause as complement",
    "compound": "part of a compound",
    "conj": "conjunct",
    "cop": "copula",
    "csubj": "clause as subject",
    "det": "determiner",
    "expl": "expletive",
    "fixed": "part of a fixed phrase",
    "flat": "part of a name",
    "iobj": "indirect object",
    "mark": "clause marker",
    "nmod": "noun about a noun",
    "nsubj": "subject",
    "nummod": "number",
    "obj": "object",
    "obl": "oblique",
    "parataxis": "clause set beside",
    "xcomp": "open complement",
}

#: rung -> the word for what is shown
RUNGS = {0: "measured", 1: "seen", 2: "necessary", 3: "selective"}


@cache
def behaviour_of(name: str) -> Behaviour:
    """How a behaviour is shown; one that this table does not know yet is shown plainly, under its own name."""
    known = BEHAVIOURS.get(name)
    if known is not None:
        return known
    family, _, member = name.partition(":")
    if member and family in BEHAVIOURS:
        return _member(BEHAVIOURS[family], member)
    title = name.replace("_", " ")
    return Behaviour(name=name, title=title, says=title, meaning="", source="", colour="#8A6D5A", mark="hexagon")


def _member(family: Behaviour, member: str) -> Behaviour:
    """One relation, one domain: with the looks of its family."""
    plain = member.replace("_", " ")
    title, says, name = plain, f"{family.says} ({plain})", f"{family.title.replace(' ', '-')} ({plain}) head"
    if family.name == "syntactic":
        dependent = RELATIONS.get(member.rstrip("<"), plain.rstrip("<"))
        back = member.endswith("<")
        title = f"{'head → ' if back else ''}{dependent}{'' if back else ' → head'} ({member})"
        says = f"looks from a word at its {dependent}" if back else f"looks from a word ({dependent}) at the one it depends on"
        name = f"{member} head"
    if family.name == "domain":
        title, says, name = f"{plain} domain", f"matters for {plain} more than for all other domains", f"{plain} head"
    if family.name == "skill":
        title, says, name = f"{plain} text", f"tells {plain} from all other text", f"{plain} neuron"
    if family.name == "concept":
        title, says, name = f"concept: {plain}", f"responds to {plain} more than to anything else asked about", f"{plain} neuron"
    return replace(
        family,
        name=f"{family.name}:{member}",
        title=title,
        says=says,
        names=(name, f"{name}s"),
        members=None,
        family=family.name,
    )


def in_order(names: list[str]) -> list[Behaviour]:
    """Known behaviours in the order of the table, then the others by name; each once."""
    order = list(BEHAVIOURS)

    def place(behaviour: Behaviour) -> tuple[int, str]:
        return (order.index(behaviour.kin) if behaviour.kin in order else len(order), behaviour.name)

    return sorted((behaviour_of(name) for name in set(names)), key=place)
