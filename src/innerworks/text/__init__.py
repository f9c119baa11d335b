"""The text chapter: what is read, and how it reaches a model."""

from innerworks.text.corpus import Corpus, Document
from innerworks.text.reading import Reading, TextBatch, Unit, read
from innerworks.text.repeats import random_repeats

__all__ = ["Corpus", "Document", "Reading", "TextBatch", "Unit", "random_repeats", "read"]
