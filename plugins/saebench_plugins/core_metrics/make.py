"""The accumulators of `saebench.metrics`, for one SAE."""

from __future__ import annotations

import numpy as np
import torch

from saebench.api import CellMetric, MetricContext
from saebench.matching import decoder_directions
from saebench.metrics.accumulator import absence
from saebench.metrics.density import DensityAccumulator
from saebench.metrics.losses import LossAccumulator
from saebench.metrics.reconstruction import ReconstructionAccumulator
from saebench.metrics.sparsity import SparsityAccumulator
from saebench.metrics.variance_share import VarianceShareAccumulator


def reconstruction(context: MetricContext) -> CellMetric:
    """x_hat against the site's target, of whatever width that is."""
    return ReconstructionAccumulator(absent=absence(context, "eval"))


def losses(context: MetricContext) -> CellMetric:
    """Cross-entropy and KL of the spliced model."""
    return LossAccumulator(absence(context, "loss"))


def sparsity(context: MetricContext) -> CellMetric:
    """Active latents of a token; `l1` with the norms of the decoder directions."""
    directions = decoder_directions(context.sae)
    norms = None if directions is None else torch.from_numpy(np.linalg.norm(directions, axis=1))
    return SparsityAccumulator(norms, absence(context, "eval"))


def density(context: MetricContext) -> CellMetric:
    """How often latents fire, and their strongest contexts."""
    return DensityAccumulator(context.d_sae, absence(context, "density"))


def shares(context: MetricContext) -> CellMetric:
    """Each latent's share of the explained variance."""
    return VarianceShareAccumulator(context.sae, decoder_directions(context.sae))
