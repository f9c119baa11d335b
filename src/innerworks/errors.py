"""Everything that can go wrong, as one tree.

InnerworksError
├── UsageError         an argument that makes no sense (also a ValueError; exit code 2 on the command line)
│   └── UnknownSite    a place that the model does not have
├── ModelError         a model that cannot be studied
│   ├── UnsupportedModel    its family or an option of its configuration is not known
│   ├── BrokenModel         its weights or files are damaged (NaN, truncated, ...)
│   └── CertificateFailed   it was loaded, but what we would measure is not what it computes
├── TextError          a corpus that cannot be read or decided on
├── SpecimenError      a specimen that could not be fetched or is not what it should be
└── AtlasError         a folder that is no finished atlas, or cannot be written

A message says what happened with the actual values, why, and what to do next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InnerworksError(Exception):
    """The root: catch this to catch every failure that innerworks raises on purpose."""


class UsageError(InnerworksError, ValueError):
    """An argument that makes no sense; nothing was done."""


class UnknownSite(UsageError):
    """A place that the model at hand does not have, or that cannot be watched or edited there."""


class ModelError(InnerworksError):
    """A model that cannot be studied."""


class UnsupportedModel(ModelError):
    """A family, or an option of a configuration, that innerworks has no adapter for."""


class BrokenModel(ModelError):
    """A model whose files or weights are damaged."""


class CertificateFailed(ModelError):
    """A model that was loaded but failed the checks that its measurements rest on; `certificate` has every one of them."""

    def __init__(self, message: str, certificate: object = None) -> None:
        super().__init__(message)
        self.certificate = certificate


class TextError(InnerworksError):
    """A corpus that cannot be read, or on which nothing can be decided."""


class SpecimenError(InnerworksError):
    """A specimen that could not be fetched, or is not byte for byte what it should be."""


class AtlasError(InnerworksError):
    """A folder that is no finished atlas, or that cannot be written."""


def near_misses(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean a, b?"` for the known words closest to `word`, or nothing."""
    close = get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""
