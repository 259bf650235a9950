"""How well an SAE finds the features that synthetic data was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from saebench.metrics.accumulator import NO_TOKENS, metric_value
from saebench.metrics.clusters import BlockCounts, ClusterRows, half_sample_error

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.codes import SparseCodes
    from saebench.api.values import MetricValue

    Floats = NDArray[np.float64]


def uniqueness(cosines: Floats) -> float:
    """Distinct nearest features over the number of latents, from |cos| `[d_sae, n_features]` (as SAELens counts them).

    1 where every latent has a nearest feature of its own; at most n_features / d_sae. Ties go to the lowest index.
    """
    nearest: set[int] = set(np.abs(cosines).argmax(1).tolist())
    return len(nearest) / len(cosines)


class FiringF1Accumulator:
    """`truth-f1`: does the matched latent fire exactly when its feature is present?

    F1_j = 2 |both| / (|latent fires| + |feature present|) over tokens, averaged over matched features that are present
    at all.

    Args:
        latents, features: `[p]` matched pairs.
        d_sae, n_features: Sizes.
    """

    def __init__(self, latents: NDArray[np.int64], features: NDArray[np.int64], d_sae: int, n_features: int) -> None:
        self.n_pairs = len(latents)
        self._pair_of_latent = torch.full((d_sae,), -1)
        self._pair_of_latent[torch.as_tensor(latents)] = torch.arange(self.n_pairs)
        self._pair_of_feature = torch.full((n_features,), -1)
        self._pair_of_feature[torch.as_tensor(features)] = torch.arange(self.n_pairs)
        self._rows = ClusterRows()
        self._tokens, self._both, self._sizes = BlockCounts(1), BlockCounts(self.n_pairs), BlockCounts(self.n_pairs)
        self._present = BlockCounts(self.n_pairs)

    def update(self, codes: SparseCodes, truth: SparseCodes, sequence_ids: Tensor | None = None) -> None:
        """Take B tokens: the SAE's codes and the true ones.

        Raises:
            ValueError: The two hold different numbers of tokens.
        """
        if codes.n_rows != truth.n_rows:
            raise ValueError(f"codes are of {codes.n_rows} tokens, truth is of {truth.n_rows}")
        rows = self._rows(sequence_ids, codes.n_rows, torch.device("cpu"))
        fired_token, fired_pair = self._firings(codes, self._pair_of_latent)
        true_token, true_pair = self._firings(truth, self._pair_of_feature)
        fired, true = fired_token * self.n_pairs + fired_pair, true_token * self.n_pairs + true_pair
        both = torch.isin(fired, true, assume_unique=True)
        self._tokens.add(rows, torch.zeros_like(rows))
        self._both.add(rows[fired_token[both]], fired_pair[both])
        self._sizes.add(rows[torch.cat([fired_token, true_token])], torch.cat([fired_pair, true_pair]))
        self._present.add(rows[true_token], true_pair)

    def compute(self) -> MetricValue:
        """The mean F1 over features that are present; n counts these features."""
        tables = self._both.blocks(), self._sizes.blocks(), self._present.blocks()
        tokens = self._tokens.blocks()[:, 0]
        n_present = int((tables[2].sum(0) > 0).sum())
        if not n_present:
            reason = "no matched feature is present in the data" if tokens.sum() else NO_TOKENS
            return metric_value("truth-f1", None, 0, reason=reason)
        error = half_sample_error(lambda both, sizes, present, _: _mean_f1(both, sizes, present), tokens, *tables)
        value = _mean_f1(*(table.sum(0) for table in tables))
        return metric_value("truth-f1", value, n_present, stderr=error)

    @staticmethod
    def _firings(codes: SparseCodes, pair_of: Tensor) -> tuple[Tensor, Tensor]:
        """(token, pair) of every active entry that belongs to a matched pair."""
        token, pair = codes.rows().cpu(), pair_of[codes.latents.cpu()]
        keep = (codes.values.detach().cpu() != 0) & (pair >= 0)
        return token[keep], pair[keep]


def _mean_f1(both: Floats, sizes: Floats, present: Floats) -> float | None:
    occurs = present > 0
    return float((2 * both[occurs] / sizes[occurs]).mean()) if occurs.any() else None
