"""What stands in the stream before any layer, and how the logits are read off at the end.

1. A token's vector: the constant, the token's own code, and what it begins with (a letter, a mark, or neither), or what sort
   of token it is, where a kit says so.
2. A position's vector (GPT-2): the hands of the clocks, and a faint flag at position 0.
3. The unembedding gives a token its log frequency by the constant, and `COPY` times how far its code is in `output`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerworks.phantoms.parts import COPY
from innerworks.phantoms.stream import CLOCKS, POSITIONS, SORTS, Stream, clock_speeds
from innerworks.phantoms.words import CONSONANTS, PUNCTUATION, VOWELS, Vocabulary


def embedding_tables(
    stream: Stream, vocabulary: Vocabulary, counts: Tensor, codes: Tensor, sorts: Mapping[int, str]
) -> dict[str, Tensor]:
    """Tables `token`, `position` (GPT-2 only) and `output`, each `[index, d_model]`.

    counts: how often each token comes, `[token]`; codes: a unit code for each, `[token, TOKEN_CODE]`; sorts: of some tokens.
    """
    frequency = (counts + 0.5) / (counts + 0.5).sum()
    tables = {
        "token": stream.write("constant").T + codes @ stream.write("token").T + _beginnings(stream, vocabulary, sorts),
        "output": frequency.log().float()[:, None] * stream.read("constant") + COPY * codes @ stream.read("output"),
    }
    if stream.architecture == "gpt2":
        angle = torch.arange(POSITIONS)[:, None] * clock_speeds()
        hands = torch.cat([angle.cos(), angle.sin()], dim=1).float() / CLOCKS**0.5
        tables["position"] = hands @ stream.write("clock").T
        tables["position"][0] += stream.write("flag")[:, 0]
    return {name: table @ stream.basis.T for name, table in tables.items()}


def _beginnings(stream: Stream, vocabulary: Vocabulary, sorts: Mapping[int, str]) -> Tensor:
    """What each token begins with, `[token, named]`: a letter, a punctuation mark, or neither; or its sort. One signal each."""
    initials = [vocabulary.initial(token) for token in range(len(vocabulary.tokens))]
    letters = sorted(CONSONANTS + VOWELS)
    columns = {letter: stream.write("letter")[:, index] for index, letter in enumerate(letters)}
    columns |= dict.fromkeys(PUNCTUATION, stream.write("punctuation")[:, 0])
    rows = torch.stack([columns.get(initial, stream.write("other")[:, 0]) for initial in initials])
    for token, sort in sorts.items():
        rows[token] = stream.write("sort")[:, SORTS.index(sort)]
    return rows
