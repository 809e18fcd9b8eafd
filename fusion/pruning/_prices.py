"""What a question costs of each agent, from the tokens and seconds of recorded answers."""

import numpy as np

from fusion.data import PredictionTable
from fusion.pruning._options import PruneOptions
from fusion.schema import FloatArray
from fusion.selectors import Prices


def mean_prices(fit: PredictionTable, options: PruneOptions) -> tuple[Prices, str]:
    """Return what a question costs of each agent and how long it takes, as far as that is known; and what is missing.

    Means are over the questions that an agent was asked: of the others nothing is known.
    """
    asked_NM = np.ones(fit.answers.shape, dtype=bool) if fit.asked is None else fit.asked
    num_asked_M = np.maximum(asked_NM.sum(axis=0), 1)
    seconds_M: FloatArray | None = None
    if fit.seconds is not None:
        seconds_M = np.where(asked_NM, fit.seconds, 0).sum(axis=0, dtype=np.float64) / num_asked_M
    unpriced = [name for name in fit.agents if name not in options.prices]
    if unpriced:
        return Prices(seconds=seconds_M), f"no price is given of {', '.join(unpriced[:5])}; give those of all agents"
    if fit.tokens_in is None or fit.tokens_out is None:
        return Prices(seconds=seconds_M), "the table has no token counts; record them (fusion record does)"
    prices_M2 = np.array([options.prices[name] for name in fit.agents], dtype=np.float64)
    usd_NM = fit.tokens_in * prices_M2[:, 0] + fit.tokens_out * prices_M2[:, 1]
    usd_M = np.where(asked_NM, usd_NM, 0).sum(axis=0) / num_asked_M / 1e6
    return Prices(usd=usd_M, seconds=seconds_M), ""
