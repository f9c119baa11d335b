"""Activations of any sites over any corpus, on disk.

- `recipe`   what is asked for: options, sites and the shapes of their rows
- `shards`   what is read: windows of documents, dealt to shards, run in batches
- `folder`   what lies in the folder: names, the index, and which files are ours
- `writing`  `collect`, with the method step by step: makes what is not there yet
- `reading`  `Activations` and `Rows`: a finished collection, read without a model
"""

from innerworks.model.collect.reading import Activations, Rows
from innerworks.model.collect.writing import Headway, collect

__all__ = ["Activations", "Headway", "Rows", "collect"]
