"""What stands in the stream before any layer, and how the logits are read off at the end.

1. A token's vector: the constant, the token's own code, and what it begins with (a letter, a mark, or neither), or what sort
   of token it is, where a kit says so; and its role, where it has one.
2. A position's vector (GPT-2): the hands of the clocks, and a faint flag at position 0.
3. The unembedding gives a token its log frequency by the constant, and `COPY` times how far its code is in `output`.
4. Such an unembedding is blind to most of the stream. In kits with neurons of the last layer it is like a trained one: it reads
   a little of everything at random, token frequency by a direction of its own, and only `null` not at all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerworks.phantoms.parts import COPY
from innerworks.phantoms.stream import CLOCKS, POSITIONS, ROLES, SORTS, Stream, clock_speeds
from innerworks.phantoms.words import CONSONANTS, PUNCTUATION, VOWELS, Vocabulary

READS = 0.05  # standard deviation of what an unembedding reads at random: a tenth of what it reads of `output`


def embedding_tables(
    stream: Stream,
    vocabulary: Vocabulary,
    counts: Tensor,
    codes: Tensor,
    sorts: Mapping[int, str],
    roles: Mapping[int, str],
) -> dict[str, Tensor]:
    """Tables `token`, `position` (GPT-2 only) and `output`, each `[index, d_model]`.

    counts: how often each token comes, `[token]`; codes: a unit code for each, `[token, TOKEN_CODE]`; sorts, roles: of
    some tokens.
    """
    frequency = log_frequency(counts)
    tables = {
        "token": stream.write("constant").T + codes @ stream.write("token").T + _beginnings(stream, vocabulary, sorts),
        "output": frequency[:, None] * stream.read("constant") + COPY * codes @ stream.read("output"),
    }
    for token, role in roles.items():
        tables["token"][token] += stream.write("role")[:, ROLES.index(role)]
    if stream.architecture == "gpt2":
        angle = torch.arange(POSITIONS)[:, None] * clock_speeds()
        hands = torch.cat([angle.cos(), angle.sin()], dim=1).float() / CLOCKS**0.5
        tables["position"] = hands @ stream.write("clock").T
        tables["position"][0] += stream.write("flag")[:, 0]
    return {name: table @ stream.basis.T for name, table in tables.items()}


def log_frequency(counts: Tensor) -> Tensor:
    """Log probability of each token, half a count added: `[token]`."""
    return ((counts + 0.5) / (counts + 0.5).sum()).log().float()


def read_everything(output: Tensor, stream: Stream, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Let an unembedding `[token, d_model]` read token frequency by `frequency`, and a little of all else but `null`."""
    frequency = log_frequency(counts)
    blind_to = torch.cat([stream.write(space) for space in ("constant", "first", "frequency", "null")], dim=1)
    blind_to = stream.basis @ torch.nn.functional.normalize(blind_to, dim=0)
    drawn = READS * torch.randn(output.shape, generator=generator)
    own = (frequency - frequency.mean())[:, None] * (stream.basis @ stream.read("frequency")[0])
    return output + own + drawn - drawn @ blind_to @ blind_to.T


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
