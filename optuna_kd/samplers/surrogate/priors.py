"""What is believed about the covariance before any trial, and about what kinds of spaces there are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Mean and standard deviation of the logarithm (of the logit, for `decay`), for rewards of variance 1.
Priors = Mapping[str, tuple[float, float]]
PRIORS: Priors = {
    "main": (np.log(0.05), 1.5),
    "pair": (np.log(0.007), 1.5),
    "prefix": (np.log(0.06), 1.5),
    "noise": (np.log(0.1), 1.0),
    "decay": (1.4, 0.7),
    "full": (np.log(0.4), 1.0),
    "reach": (np.log(1.5), 0.5),
    "relevance": (0.0, 0.4),
    "length": (np.log(0.25), 0.5),
}
# What a space may be like. With few trials wide priors alone leave it open, and cost a tenth of a standard
# deviation on landscapes of one kind or the other: each kind is fitted, and the most probable one is taken.
KINDS: tuple[Priors, ...] = (
    {  # options and their pairs count, wherever in the tree
        **PRIORS,
        "main": (np.log(0.06), 0.7),
        "pair": (np.log(0.01), 0.7),
        "prefix": (np.log(0.005), 0.7),
        "full": (np.log(0.1), 0.7),
    },
    {  # branches count
        **PRIORS,
        "main": (np.log(0.04), 0.7),
        "pair": (np.log(0.001), 1.0),
        "prefix": (np.log(0.24), 0.7),
        "decay": (0.6, 0.4),
        "full": (np.log(0.1), 0.7),
    },
    {  # whole recipes count, and say something about those that differ in a choice or two
        **PRIORS,
        "main": (np.log(0.02), 0.7),
        "pair": (np.log(0.003), 0.7),
        "prefix": (np.log(0.005), 0.7),
        "full": (np.log(1.0), 0.5),
        "reach": (np.log(2), 0.3),
    },
)
