"""The strongest contexts of a few latents: what a reader needs to see what a latent means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.batches import ActivationBatch
    from saebench.api.codes import SparseCodes

N_LATENTS = 20
N_CONTEXTS = 4
BEFORE, AFTER = 8, 4
MOST_TOKENS = 1 << 16
MOST_ENTRIES = 1 << 23


class ContextCollector:
    """Keeps the first 65,536 tokens of a stream with their active latents, at most 8 M, and takes contexts of them."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self._parts: list[tuple[Tensor, ...]] = []
        self._n_tokens = 0
        self._n_entries = 0

    def update(self, batch: ActivationBatch, codes: SparseCodes) -> None:
        """Take B tokens; batches without token ids are passed over."""
        if batch.token_ids is None or self._n_tokens >= MOST_TOKENS or self._n_entries >= MOST_ENTRIES:
            return
        active = (codes.values.detach() != 0) & codes.values.detach().isfinite()
        n = codes.n_rows
        sequences = batch.sequence_ids if batch.sequence_ids is not None else torch.zeros(n, dtype=torch.int64)
        positions = batch.positions if batch.positions is not None else torch.arange(self._n_tokens, self._n_tokens + n)
        entries = (
            codes.rows()[active].cpu() + self._n_tokens,
            codes.latents[active].cpu().int(),
            codes.values.detach()[active].float().cpu(),
        )
        self._parts.append((batch.token_ids.cpu(), sequences.cpu(), positions.cpu(), *entries))
        self._n_tokens += n
        self._n_entries += entries[0].numel()

    def compute(self, density: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
        """JSON-ready contexts of up to 20 latents.

        The latents are those at evenly spaced ranks of density among those that fire here (ties by index). A latent's
        contexts are its strongest |activations|, one a sequence (ties by place in the stream), with 8 tokens before and
        4 after in that sequence.

        Args:
            density: `[d_sae]`, by which latents are ranked and reported; None: the density in the kept tokens.

        Returns:
            `{latent, density, contexts: [{peak, token_ids, activations, at, position}]}`: `peak` the activation at
            index `at` of the window, `position` that token's place in its sequence. Empty where there are no tokens.
        """
        if not self._parts:
            return []
        tokens, sequences, positions, places, latents, values = (
            torch.cat(part).numpy() for part in zip(*self._parts, strict=True)
        )
        counts = np.bincount(latents, minlength=self.d_sae)
        if density is None:
            density = counts / self._n_tokens
        alive = np.flatnonzero(counts)
        alive = alive[np.lexsort((alive, density[alive]))]
        chosen = alive[np.unique(np.linspace(0, len(alive) - 1, min(N_LATENTS, len(alive))).round().astype(np.int64))]
        starts = np.flatnonzero(np.r_[True, sequences[1:] != sequences[:-1]])
        ends = np.r_[starts[1:], len(tokens)]
        rows = []
        for latent in chosen.tolist():
            mine = latents == latent
            at, value = places[mine], values[mine]
            contexts = []
            seen: set[int] = set()
            for i in np.lexsort((at, -np.abs(value))).tolist():
                run = int(np.searchsorted(starts, at[i], side="right")) - 1
                if run in seen:
                    continue
                seen.add(run)
                low, high = max(int(starts[run]), int(at[i]) - BEFORE), min(int(ends[run]), int(at[i]) + AFTER + 1)
                window = np.zeros(high - low)
                inside = (at >= low) & (at < high)
                window[at[inside] - low] = value[inside]
                contexts.append(
                    {
                        "peak": _short(value[i]),
                        "token_ids": tokens[low:high].tolist(),
                        "activations": [_short(a) for a in window.tolist()],
                        "at": int(at[i]) - low,
                        "position": int(positions[at[i]]),
                    }
                )
                if len(contexts) == N_CONTEXTS:
                    break
            rows.append({"latent": latent, "density": float(density[latent]), "contexts": contexts})
        return rows


def _short(value: float) -> float:
    """Four digits: enough to read, and small records."""
    return float(f"{value:.4g}")
