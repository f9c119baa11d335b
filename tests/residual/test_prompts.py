"""One prompt, looked at: what the lens and the shares say is what the model computes, on every family, and people can read it."""

import json

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from torch import testing

import families
from innerworks import residual
from innerworks.errors import UnsupportedModel, UsageError
from innerworks.model import readout

PROMPT = "the cat sat and saw a dog ."
every_family = pytest.mark.parametrize("family", families.ALL)


def printed(thing: object, width: int) -> str:
    console = Console(width=width, force_terminal=False, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


class TestLens:
    @every_family
    def test_the_last_layer_is_what_the_model_says(self, tiny_model, family):
        model = tiny_model(family)
        found = residual.lens(model, PROMPT)
        logits = model.run(PROMPT).logits[0].detach()
        assert found.tokens == tuple(PROMPT.split()) and len(found.sites) == model.anatomy.layers
        said = torch.distributions.Categorical(logits=logits)
        last = found.places[-1]
        assert [place.guesses[0].id for place in last] == logits.argmax(dim=-1).tolist()
        testing.assert_close(torch.tensor([place.entropy for place in last]), said.entropy(), atol=2e-5, rtol=2e-5)
        probability = torch.tensor([place.guesses[0].probability for place in last])
        testing.assert_close(probability, said.probs.max(dim=-1).values, atol=2e-5, rtol=2e-5)

    def test_a_layer_is_what_the_logit_lens_says(self, tiny_model):
        model = tiny_model("llama")
        found = residual.lens(model, PROMPT, kind="resid_pre", k=3)
        logits = readout.logit_lens(model, PROMPT, kind="resid_pre")[1, 0, 4]
        place = found.places[1][4]
        assert found.sites[1] == "L1.resid_pre" and found.shown == 3 and len(place.guesses) == 5
        assert [guess.id for guess in place.guesses] == logits.topk(5).indices.tolist()
        assert place.guesses[2].text == model.tokenizer.decode([place.guesses[2].id])

    @pytest.mark.parametrize("width", [40, 80, 200])
    def test_a_terminal_of_any_width_shows_every_position(self, tiny_model, width):
        found = residual.lens(tiny_model("llama"), PROMPT, k=2)
        lines = printed(found, width).splitlines()
        assert max(map(cell_len, lines)) <= width
        heads = " ".join(lines)
        for i, token in enumerate(PROMPT.split()):
            assert f"{i} {token}" in heads
        blocks = sum(line.startswith("L2 ") for line in lines)
        assert blocks == {40: 4, 80: 2, 200: 1}[width] == sum(line.startswith("L0 ") for line in lines)
        best = found.places[2][0].guesses[0]
        row = next(line for line in lines if line.startswith("L2 "))
        assert row.split()[:4] == ["L2", best.text, f"{best.probability:.0%}", f"{found.places[2][0].entropy:.1f}"]

    def test_as_plain_data(self, tiny_model):
        said = json.loads(json.dumps(residual.lens(tiny_model("gpt2"), PROMPT).as_dict(), allow_nan=False))
        assert said["lens"] == "logit lens" and len(said["places"]) == 3 * 8
        assert said["places"][9].keys() == {"site", "position", "guesses", "entropy"}
        assert (said["places"][9]["site"], said["places"][9]["position"]) == ("L1.resid_post", 1)
        assert said["places"][9]["guesses"][0].keys() == {"id", "text", "probability", "logit"}

    def test_the_page_stands_alone_and_escapes_what_a_model_says(self, tiny_hf, tokenizer_of):
        import innerworks as iw

        hostile = "<script>alert(1)</script>"
        model = iw.Model(tiny_hf("gpt2"), tokenizer_of(words=["the", hostile]), name="<b>bold</b>")
        page = residual.lens(model, f"the {hostile}").html()
        assert "<script" not in page and "<b>" not in page and "default-src 'none'" in page
        assert "&lt;script&gt;a" in page and "http" not in page.replace("http-equiv", "")
        assert page.count("<td") == 3 * 2 and "rowgroup" not in page


class TestShares:
    @pytest.mark.parametrize("family", [name for name in families.ALL if name != "opt-post-norm"])
    @pytest.mark.parametrize("by", ["component", "head", "neuron", "source"])
    def test_they_add_up_to_the_models_own_logit_difference(self, tiny_model, family, by):
        model = tiny_model(family)
        if by == "source" and family in families.OWN_CODE:
            with pytest.raises(UnsupportedModel, match="Use by='head'"):
                residual.shares(model, PROMPT, "dog", "cat", by=by)
            return
        found = residual.shares(model, PROMPT, "dog", "cat", by=by, n=4)
        logits = model.readout(model.run(PROMPT).final[0, -1], capped=False).detach().double()
        difference = float(logits[found.answer.id] - logits[found.foil.id])
        assert found.total == pytest.approx(difference, abs=1e-3) and found.exact == pytest.approx(difference, abs=1e-4)
        assert sum(part.value for part in found.parts) + found.rest == pytest.approx(difference, abs=1e-3)
        assert (found.answer.text, found.foil.text) == ("dog", "cat") and len(found.parts) == 4
        assert found.answer.logit - found.foil.logit == pytest.approx(difference, abs=1e-6)

    def test_the_strongest_parts_are_listed_and_the_others_summed(self, tiny_model):
        model = tiny_model("llama")
        found = residual.shares(model, PROMPT, "dog", by="head", n=3)
        table = readout.attribute(model, PROMPT, "dog", by="head").frame().sort("value")
        sizes = sorted((abs(value) for value in table["value"]), reverse=True)
        assert [abs(part.value) for part in found.parts] == pytest.approx(sizes[:3])
        assert found.all_parts == len(table) == sum(kind.parts for kind in found.kinds) and found.foil is None
        heads = next(kind for kind in found.kinds if kind.component == "head")
        assert (heads.parts, heads.value) == (12, pytest.approx(table.filter(component="head")["value"].sum()))
        assert found.rest == pytest.approx(table["value"].sum() - sum(part.value for part in found.parts))

    def test_ranks_and_probabilities_are_the_models(self, tiny_model):
        model = tiny_model("gemma2")  # with a soft cap
        logits = model.run(PROMPT).logits[0, -1].detach()
        best = int(logits.argmax())
        found = residual.shares(model, PROMPT, best, 5)
        assert found.answer.rank == 1 and found.foil.rank == 1 + int((logits > logits[5]).sum())
        assert found.answer.probability == pytest.approx(float(logits.softmax(0)[best]), abs=1e-6)

    @pytest.mark.parametrize("width", [40, 80, 160])
    def test_a_terminal_shows_parts_kinds_and_sums(self, tiny_model, width):
        text = printed(residual.shares(tiny_model("llama"), PROMPT, "dog", "cat", by="source", n=6), width)
        assert max(map(cell_len, text.splitlines())) <= width
        said = " ".join(text.split())
        assert "the logit of dog less that of cat" in said and "The 6 strongest parts come to" in said
        assert "The model's own (before any soft cap): " in said and "head" in said and ("█" in text) == (width >= 60)
        assert all(f"L{layer}H" in said or f"L{layer}.mlp_out" in said or "embed" in said for layer in range(3))

    def test_the_page_stands_alone(self, tiny_model):
        page = residual.shares(tiny_model("gpt2"), PROMPT, "dog", "cat", by="head", n=7).html()
        assert page.count('class="bar"') == 7 and "<script" not in page and "default-src 'none'" in page
        assert "The 7 strongest parts come to" in page

    @pytest.mark.parametrize(
        ("answer", "options", "says"),
        [
            ("dog", {"foil": "dog"}, "The foil is the answer itself"),
            ("dog", {"n": 0}, "n=0: at least one part"),
            ("the cat", {}, "is 2 tokens"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, tiny_model, answer, options, says):
        with pytest.raises(UsageError, match=says):
            residual.shares(tiny_model("gpt2"), PROMPT, answer, **options)
