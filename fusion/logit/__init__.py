"""A conditional logit with partial pooling: every option of a question is scored by the same features of who chose it.

Fusers settle answers with it, and policies read from it what the answers so far say.
"""

from fusion.logit._candidates import NUM_COUNTS, Candidates, candidates, centred, count_curves, joined, kinds, scales
from fusion.logit._pooled import Model, Rows, Weights, Worth, fit, held_out, probabilities
from fusion.logit._threads import libraries, one_thread

__all__ = [
    "NUM_COUNTS",
    "Candidates",
    "Model",
    "Rows",
    "Weights",
    "Worth",
    "candidates",
    "centred",
    "count_curves",
    "fit",
    "held_out",
    "joined",
    "kinds",
    "libraries",
    "one_thread",
    "probabilities",
    "scales",
]
