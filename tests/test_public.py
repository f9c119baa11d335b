"""The front door: names, and what importing them costs."""

import importlib
import subprocess
import sys

import pytest

import innerworks as iw


@pytest.mark.parametrize("name", iw.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(iw, name) is not None
    assert name in dir(iw)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'innerworks' has no attribute 'brains'"):
        iw.brains  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "innerworks",
        "innerworks.sites",
        "innerworks.stats",
        "innerworks.findings",
        "innerworks.atlas",
        "innerworks.show",
    ],
)
def test_the_light_tower_does_not_import_torch(module):
    script = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_types_are_checked_at_run_time_under_pytest(tiny_model, tokens):
    with pytest.raises(Exception, match="Type-check error"):
        tiny_model("gpt2").run(tokens.float())


@pytest.mark.parametrize(
    "name",
    ["UsageError", "UnknownSite", "UnsupportedModel", "BrokenModel", "CertificateFailed", "TextError", "SpecimenError"],
)
def test_every_error_is_an_innerworks_error(name):
    errors = importlib.import_module("innerworks.errors")
    assert issubclass(getattr(errors, name), errors.InnerworksError)
