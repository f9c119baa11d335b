"""What is known of a token before any model reads it: the features that neurons may respond to.

1. A *family* is a question, and its columns the possible answers: where the token stands, what sort of token it is, which letter
   it begins with, how frequent it is, which of the common tokens it is, which of them stands before it.
2. `Design.of` chooses the columns once, from the tokenizer and the discovery half of a reading: about 150, never more than 256.
3. `Design.rows` looks them up for a batch: `[batch, seq, column]`, the first column a constant.

Families that the token itself decides (`OF_THE_TOKEN`) repeat the same few token types in every document, so documents alone
would let any accident of a type pass. So token types are dealt, too: `type_part` says whether to fit on them (two quarters) or to
test on them (half), `type_bucket` which unit they are of in a test over types (`buckets.py`).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.text import Reading

POSITION_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224)  # first positions of the bins
COMMON = 48  # tokens with a column of their own, as the current and as the previous token
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SORTS = ("letter", "digit", "mark", "blank", "capital", "all capitals", "begins a word")
OF_THE_TOKEN = ("token_class", "alphabet", "frequency")
BUCKETS = 64  # of token types
PARTS = 3  # of token types: two to fit on, one to test on
TESTED = PARTS - 1


@dataclass(frozen=True, kw_only=True)
class Design:
    """The columns of all families, and how to look them up."""

    columns: tuple[tuple[str, str], ...]  # (family, what it says), the constant first
    of_token: Float[Tensor, "vocab own"]  # the columns that the current token decides, without `token`
    common: Int[Tensor, " common"]  # tokens with columns of their own
    part: Int[Tensor, " vocab"]  # of its type
    bucket: Int[Tensor, " vocab"]  # of its type
    types: tuple[str, ...]  # each token without its case and the blanks around it

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, reading: Reading, *, vocab: int) -> "Design":
        """Choose the columns from a tokenizer and the discovery half of a reading."""
        counts = Counter(
            token
            for window in reading.windows
            if (unit := reading.units[window.unit]).half == "discovery" and unit.material == "text"
            for token in window.tokens
        )
        common = [token for token, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:COMMON]]
        texts = texts_of(tokenizer, vocab, behind=common[0])
        frequency = np.log(np.array([counts[token] for token in range(vocab)]) + 0.5)
        standard = (frequency - frequency.mean()) / max(float(frequency.std()), 1e-9)
        own = np.array([[*_sorts(text), *_letters(text), rare] for text, rare in zip(texts, standard, strict=True)])
        names = [texts[token] for token in common]
        columns = [("constant", "")]
        columns += [("position", f"from {edge}") for edge in POSITION_EDGES]
        columns += [("token_class", sort) for sort in SORTS] + [("alphabet", letter) for letter in LETTERS]
        columns += [("frequency", "log frequency")]
        columns += [("token", name) for name in names] + [("previous_token", name) for name in names]
        types = tuple(text.strip().casefold() for text in texts)
        return cls(
            columns=tuple(columns),
            of_token=torch.tensor(own, dtype=torch.float32),
            common=torch.tensor(common, dtype=torch.long),
            part=torch.tensor([type_part(one) for one in types]),
            bucket=torch.tensor([type_bucket(one) for one in types]),
            types=types,
        )

    def places(self, *families: str) -> list[int]:
        """The columns of some families."""
        return [place for place, (name, _) in enumerate(self.columns) if name in families]

    def rows(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq column"]:
        """The features of every token of some texts."""
        device = tokens.device
        before = tokens.roll(1, dims=1)  # at position 0, which nobody reads, the last
        common = self.common.to(device)
        return torch.cat(
            [
                positions(torch.arange(tokens.shape[1], device=device)).expand(*tokens.shape, -1),
                self.of_token.to(device)[tokens],
                (tokens[..., None] == common).float(),
                (before[..., None] == common).float(),
            ],
            dim=-1,
        )


def positions(position: Int[Tensor, " row"]) -> Float[Tensor, "row bin"]:
    """The constant, and the columns of the position."""
    edges = torch.tensor([*POSITION_EDGES, 10**9], device=position.device)
    bins = (position[:, None] >= edges[:-1]) & (position[:, None] < edges[1:])
    return torch.cat([torch.ones(len(position), 1, device=position.device), bins.float()], dim=1)


def texts_of(tokenizer: PreTrainedTokenizerBase, vocab: int, *, behind: int) -> list[str]:
    """The text of every token as it stands behind another one, the blank between them included; "" where there is none."""
    there = min(vocab, len(tokenizer))
    before = str(tokenizer.decode([behind]))
    texts = [str(tokenizer.decode([behind, token])).removeprefix(before) for token in range(there)]
    return texts + [""] * (vocab - there)


def type_part(text: str) -> int:
    """Deal a token type to those tested on (half of them), or to one of the two quarters that are fitted on."""
    first, _, third = hashlib.sha256(text.encode()).digest()[:3]
    return TESTED if first & 1 else third & 1


def type_bucket(text: str) -> int:
    """Deal a token type to one of the buckets, whatever its part."""
    return hashlib.sha256(text.encode()).digest()[1] % BUCKETS


def _sorts(text: str) -> list[float]:
    shown = text.strip()
    first = shown[:1]
    return [
        float(sort)
        for sort in (
            first.isalpha(),
            first.isnumeric(),
            bool(shown) and not first.isalnum(),
            not shown,
            first.isupper(),
            len(shown) > 1 and shown.isupper(),
            text[:1].isspace() and first.isalnum(),
        )
    ]


def _letters(text: str) -> list[float]:
    first = text.strip()[:1].casefold()
    return [float(first == letter) for letter in LETTERS]
