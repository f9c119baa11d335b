"""Phantoms are what they claim: the planted heads look where they should, the others do not, and the wiring is causal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from innerworks.errors import UsageError
from innerworks.phantoms import Phantom, build
from innerworks.phantoms.rotation import rotated
from planted import documents, losses, masses, patterns, phantom, place, repeats, silence, targets

ARCHITECTURES = ("gpt2", "llama")
SEEDS = (0, 1)
LEAST = {"previous_token": 0.8, "duplicate_token": 0.6, "induction": 0.6, "first_token": 0.8}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such small models run no faster on two threads, and far slower where another process has one of the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def looked_for(made: Phantom) -> dict[str, tuple[str, ...]]:
    """The planted heads whose targets `planted.targets` knows."""
    return {behaviour: sites for behaviour, sites in made.truth.items() if behaviour in LEAST}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("material", ["random", "documents"])
def test_planted_heads_and_only_they_look_where_they_should(architecture: str, seed: int, material: str) -> None:
    made = phantom(architecture, seed)
    tokens = repeats(len(made.tokenizer), seed=seed) if material == "random" else documents(made)
    found = masses(made.hf, tokens)
    for behaviour, sites in looked_for(made).items():
        for site in sites:
            assert found[behaviour][place(site)] >= LEAST[behaviour], (behaviour, site)
        others = found[behaviour].clone()
        for site in (*sites, *made.decoys.values(), *made.truth["punctuation"]):
            others[place(site)] = 0
        wanted = {place(site) for planted in made.truth.values() for site in planted}
        if behaviour == "first_token":  # where the planted heads rest
            for site in wanted:
                others[site] = 0
        assert others.max() < 0.3, (behaviour, int(others.argmax()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_as_late_as_300(architecture: str) -> None:
    made = phantom(architecture, 0)
    tokens = repeats(len(made.tokenizer), rows=2, length=320)
    tokens[:, 260:310] = tokens[:, 160:210]
    pattern, masks = patterns(made.hf, tokens), targets(tokens)
    for behaviour, sites in looked_for(made).items():
        rows = masks[behaviour].any(dim=-1)
        rows[:, :250] = False
        for layer, head in map(place, sites):
            assert (pattern[:, layer, head] * masks[behaviour]).sum(dim=-1)[rows].mean() >= LEAST[behaviour]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_answer_key_names_distinct_heads_among_many(architecture: str) -> None:
    made = phantom(architecture, 0)
    assert set(made.truth) == {*LEAST, "punctuation"}
    assert set(made.decoys) == {"fixed_gap", "local_window", "same_first_letter"}
    (induction,), (pair, _) = made.truth["induction"], made.truth["previous_token"]
    assert made.behaviours[induction] == ("induction", "copying")
    assert set(made.necessary) == {pair, induction, *made.truth["duplicate_token"]}
    sites = [site for planted in made.truth.values() for site in planted] + list(made.decoys.values())
    assert len(set(sites)) == len(sites) == 9
    config = made.hf.config
    own_key_heads = 10 * config.num_attention_heads // getattr(config, "num_key_value_heads", config.num_attention_heads)
    assert config.num_hidden_layers * config.num_attention_heads - own_key_heads >= 24
    assert place(made.truth["previous_token"][0])[0] < place(made.truth["induction"][0])[0]
    assert not made.hf.training
    assert {parameter.dtype for parameter in made.hf.parameters()} == {torch.float32}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_pair_is_wired_and_the_copy_is_used(architecture: str) -> None:
    """Without its previous-token head the induction head finds nothing; without either, second copies are as hard as first."""
    made = phantom(architecture, 0)
    tokens = torch.randint(len(made.tokenizer), (4, 40), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([tokens, tokens], dim=1)
    pair, lone = made.truth["previous_token"]
    (induction,) = made.truth["induction"]
    first, second = losses(made.hf, tokens)[:, 2:38].mean(), losses(made.hf, tokens)[:, 42:].mean()
    assert second < first - 3
    for site, harmful in ((pair, True), (induction, True), (lone, False)):
        without = silence(made.hf, site)
        assert (losses(without, tokens)[:, 42:].mean() > first - 1) == harmful
        if site != induction:
            mass = masses(without, tokens)["induction"][place(induction)]
            assert mass < 0.1 if harmful else mass > 0.6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_duplicate_head_helps_with_tokens_seen_before(architecture: str) -> None:
    made = phantom(architecture, 0)
    tokens = documents(made)
    seen = targets(tokens)["duplicate_token"].any(dim=-1)[:, 1:]
    harm = losses(silence(made.hf, made.truth["duplicate_token"][0]), tokens) - losses(made.hf, tokens)
    assert harm[seen].mean() > 0.2
    assert harm[~seen].mean() < 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_amplitude_is_the_mass_on_one_target(architecture: str) -> None:
    made = phantom(architecture, 0, 0.5)
    found = masses(made.hf, repeats(len(made.tokenizer)))
    for behaviour, sites in looked_for(made).items():
        for site in sites:
            assert 0.3 < found[behaviour][place(site)] < 0.7, (behaviour, site)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_seed_decides_everything(architecture: str) -> None:
    before = torch.random.get_rng_state()
    made, again = phantom(architecture, 0), build(architecture, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights, same = made.hf.state_dict(), again.hf.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert (made.truth, made.decoys, made.documents(2)) == (again.truth, again.decoys, again.documents(2))
    other = phantom(architecture, 1)
    assert made.documents(2) != made.documents(2, seed=1)
    assert (made.truth, made.documents(1)) != (other.truth, other.documents(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_noise_is_relative_to_each_matrix(architecture: str) -> None:
    plain, noisy = phantom(architecture, 0).hf.state_dict(), build(architecture, seed=0, noise=0.1).hf.state_dict()
    for name, weight in plain.items():
        added = (noisy[name] - weight).square().mean().sqrt()
        expected = 0.1 * weight.square().mean().sqrt() if weight.ndim == 2 else torch.tensor(0.0)
        assert torch.isclose(added, expected, rtol=0.05), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rotating_the_stream_changes_nothing(architecture: str) -> None:
    made = phantom(architecture, 0)
    tokens = repeats(len(made.tokenizer))
    turned = rotated(made.hf, seed=5)
    with torch.no_grad():
        assert (turned(tokens).logits - made.hf(tokens).logits).abs().max() <= 1e-4
    moved = (turned.lm_head.weight - made.hf.lm_head.weight).norm() / made.hf.lm_head.weight.norm()
    assert moved > 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_saves_and_loads_like_any_model(architecture: str, tmp_path: Path) -> None:
    made = phantom(architecture, 0)
    made.hf.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    hf, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    texts = made.documents(3)
    ids = tokenizer(texts, return_offsets_mapping=True)
    assert ids["input_ids"] == made.tokenizer(texts)["input_ids"]
    assert [text[a:b] for text, (a, b) in zip(texts[:1] * 3, ids["offset_mapping"][0][:3], strict=True)]
    tokens = documents(made, n=2)
    hf.set_attn_implementation(made.hf.config._attn_implementation)
    with torch.no_grad():
        assert torch.equal(hf(tokens).logits, made.hf(tokens).logits)


def test_the_tokenizer_reads_its_language() -> None:
    made = phantom("llama", 0)
    assert 400 <= len(made.tokenizer) == made.hf.config.vocab_size <= 600
    (text,) = made.documents(1, words=150)
    encoded = made.tokenizer(text, return_offsets_mapping=True)
    pieces = made.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert made.tokenizer.decode(encoded["input_ids"]).strip() == text
    assert "".join(text[a:b] for a, b in encoded["offset_mapping"]) == text
    assert not {"<unk>", "<eos>"} & set(pieces)
    assert any(piece in ",." for piece in pieces)
    assert any(piece.isalpha() and not piece.startswith("Ġ") for piece in pieces)  # a word of several pieces
    assert 150 <= len(text.split()) <= 156


@pytest.mark.parametrize("wrong", [{"amplitude": 0.0}, {"amplitude": 1.5}, {"noise": -0.1}, {"kit": "pattern"}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        build("gpt2", seed=0, **wrong)
