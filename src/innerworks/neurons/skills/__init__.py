"""Which single neurons tell what kind of text this is (a language, code, dialogue)? See `study.py`.

1. Watch (`watch.py`): what every neuron does on each document, on average and at one late position.
2. Predict (`predict.py`): how well a threshold on one neuron tells a kind of text, chosen and tested on different documents.
3. Perturb (`perturb.py`): what it costs each document when the best of them are taken out together, against other groups.
4. Decide (`accuracy.py`, `decide.py`): an exact test of balanced accuracy, and a two-sample t of harm over documents.
"""

from innerworks.neurons.skills.study import Skills

__all__ = ["Skills"]
