"""The report: one self-contained HTML page that opens by double click, without network.

>>> from innerworks.show import report            # doctest: +SKIP
>>> report.write(atlas)     # doctest: +SKIP

Everything that comes from a model or a text is escaped, and the page forbids itself (by its own policy) to load
anything.
"""

from innerworks.show.report.document import render, write

__all__ = ["render", "write"]
