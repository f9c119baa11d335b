"""Readings without a tokenizer, for every test of this folder."""

from readings import make_reading, one_thread, spell  # noqa: F401
