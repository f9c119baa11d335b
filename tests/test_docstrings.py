"""The examples in docstrings are run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["innerworks.sites", "innerworks.text.pieces", "innerworks.neurons.universal.stretches"])
def test_the_examples_in_the_docstrings_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0
