"""Does a model speak of a concept when the concept's neurons are held at what they do where it is there?

1. Prompts of our own that have none of the words, cut to equally many tokens, go on by sampling at temperature 1, each way with
   the same random numbers.
2. Forced: each neuron is set to its median response to the concept's examples of the discovery half, at every position but the
   first, while text is generated (Suau et al. 2020, arXiv:2005.07647).
3. Per prompt: does what is generated hold any word of the concept's list, in the singular or the plural?

Compared are matched neurons, forced to *their* median response on the same examples. What this does not do: judge the text.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from innerworks.model import Model, patch
from innerworks.neurons.necessity import Neuron
from innerworks.sites import Site
from innerworks.text.tasks.concepts import CLASSES
from innerworks.text.tasks.pairs import encoded

PROMPTS = (
    "It was late when we",
    "The first thing I noticed was",
    "In the end they found",
    "She told me that the",
    "There was something about the",
    "He opened the box and",
    "Nobody could explain why the",
    "We had never seen such",
    "At the back of the",
    "They asked me about the",
    "The story begins with a",
    "All of a sudden the",
    "What I like best is",
    "On the other side of",
    "People here are fond of",
    "Next to the house was",
    "I still remember the old",
    "The letter spoke of a",
    "Once upon a time there",
    "You should have seen the",
)
Values = Mapping[Neuron, float]  # what each neuron is held at


def texts(model: Model, held: Values, *, tokens: int, seed: int) -> list[str]:
    """What each prompt goes on with, so many tokens of it, with these neurons held."""
    edits = [
        patch(Site(layer=layer, neuron=neuron), torch.tensor(value), positions=None) for (layer, neuron), value in held.items()
    ]
    with model.edited(edits):
        made = _sampled(model, _prompts(model), tokens, torch.Generator().manual_seed(seed))
    return model.tokenizer.batch_decode(made)


def mentions(some: Sequence[str], concept: str) -> Bool[np.ndarray, " text"]:
    """Which texts hold a word of a concept's list?"""
    words = "|".join(_either_case(word) for word in CLASSES[concept].split())
    pattern = re.compile(rf"\b(?:{words})(?:s|es)?\b")
    return np.array([bool(pattern.search(one)) for one in some])


def _either_case(word: str) -> str:
    """A word may begin a sentence, but a name has its capital."""
    return word if word[0].isupper() else f"[{word[0]}{word[0].upper()}]{word[1:]}"


def _prompts(model: Model) -> Int[Tensor, "prompt seq"]:
    rows = [encoded(model.tokenizer, prompt) for prompt in PROMPTS]
    shortest = min(len(row) for row in rows)
    return torch.tensor([row[:shortest] for row in rows], device=model.device)


@torch.no_grad()
def _sampled(model: Model, prompts: Int[Tensor, "prompt seq"], tokens: int, generator: torch.Generator) -> list[list[int]]:
    cache, read, made = DynamicCache(), prompts, []
    for _ in range(tokens):
        logits = model.hf(input_ids=read, past_key_values=cache, use_cache=True).logits[:, -1]
        likely = logits.float().softmax(dim=-1).cpu()
        read = torch.multinomial(likely, 1, generator=generator).to(model.device)
        made.append(read[:, 0].cpu())
    return torch.stack(made, dim=1).tolist()
