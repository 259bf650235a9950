"""Sparse latent codes, in the shape that `torch.nn.functional.embedding_bag` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
    """CSR-shaped codes of B tokens. Row b holds `values[offsets[b]:offsets[b + 1]]` at the same slice of `latents`.

    Entries may be zero (a TopK row whose kept pre-activation was negative); `l0` counts entries that are not zero.

    Attributes:
        values: `[nnz]` float, may carry gradient.
        latents: `[nnz]` int64, each in `[0, d_sae)`, at most once a row.
        offsets: `[B + 1]` int64, `offsets[0] == 0`, not decreasing, `offsets[-1] == nnz`.
        d_sae: Number of latents.
        side: Per-token tensors that encode leaves for decode (a mean, a scale), each `[B]` or `[B, width]`. Scoring
            takes those that `ArchitectureSpec.side` declares, in float32.
    """

    values: Tensor
    latents: Tensor
    offsets: Tensor
    d_sae: int
    side: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """B, the number of tokens."""
        return self.offsets.numel() - 1

    @classmethod
    def from_topk(cls, values: Tensor, latents: Tensor, d_sae: int) -> SparseCodes:
        """Codes with exactly k entries a row, from `values [B, k]` and `latents [B, k]`."""
        import torch

        n_rows, k = values.shape
        offsets = (
            torch.arange(0, n_rows * k + 1, k, device=values.device)
            if k
            else torch.zeros(n_rows + 1, dtype=torch.long, device=values.device)
        )
        return cls(values.reshape(-1), latents.reshape(-1), offsets, d_sae)

    @classmethod
    def from_dense(cls, z: Tensor) -> SparseCodes:
        """Codes of the entries of `z [B, d_sae]` that are not zero; gradients flow to those."""
        import torch

        rows, latents = torch.nonzero(z, as_tuple=True)
        return cls(z[rows, latents], latents, cls.offsets_from_rows(rows, z.shape[0]), z.shape[1])

    @classmethod
    def concatenate(cls, pieces: Sequence[SparseCodes]) -> SparseCodes:
        """Codes of tokens that follow one another as one: one piece or more, of one `d_sae` and equal `side` names."""
        import torch

        first = pieces[0]
        return replace(
            first,
            values=torch.cat([piece.values for piece in pieces]),
            latents=torch.cat([piece.latents for piece in pieces]),
            offsets=cls._offsets(torch.cat([piece.offsets.diff() for piece in pieces])),
            side={name: torch.cat([piece.side[name] for piece in pieces]) for name in first.side},
        )

    @staticmethod
    def _offsets(counts: Tensor) -> Tensor:
        """`[B + 1]` offsets of rows of so many entries `[B]`."""
        import torch

        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @staticmethod
    def offsets_from_rows(rows: Tensor, n_rows: int) -> Tensor:
        """`[n_rows + 1]` offsets from sorted row ids `[nnz]`."""
        import torch

        if rows.is_cuda:  # counting there waits for the device
            return torch.searchsorted(rows, torch.arange(n_rows + 1, device=rows.device))
        offsets = torch.zeros(n_rows + 1, dtype=torch.long, device=rows.device)
        offsets[1:] = torch.cumsum(torch.bincount(rows, minlength=n_rows), 0)
        return offsets

    def rows(self) -> Tensor:
        """`[nnz]` int64: the row of each entry."""
        return self.rows_of(self.offsets, self.latents.numel())

    @staticmethod
    def rows_of(offsets: Tensor, n_entries: int) -> Tensor:
        """`[n_entries]` int64: the row of each entry, from `offsets [B + 1]`. Told how many, no device waits."""
        import torch

        rows = torch.arange(offsets.numel() - 1, device=offsets.device)
        return torch.repeat_interleave(rows, offsets.diff(), output_size=n_entries)

    def to_dense(self) -> Tensor:
        """`[B, d_sae]`. For tests and small pictures only: dense codes appear nowhere else."""
        z = self.values.new_zeros(self.n_rows, self.d_sae)
        return z.index_put((self.rows(), self.latents), self.values)

    def select(self, rows: Tensor) -> SparseCodes:
        """The given rows `[m]` int64, in that order; a row may occur more than once."""
        import torch

        counts = self.offsets.diff()[rows]
        offsets = self._offsets(counts)
        n_entries = int(offsets[-1])
        starts = torch.repeat_interleave(self.offsets[rows] - offsets[:-1], counts, output_size=n_entries)
        places = starts + torch.arange(n_entries, device=starts.device)
        side = {name: values[rows] for name, values in self.side.items()}
        return replace(self, values=self.values[places], latents=self.latents[places], offsets=offsets, side=side)

    def slice(self, start: int, stop: int) -> SparseCodes:
        """Rows `start` to `stop`, as views of the same memory."""
        offsets = self.offsets[start : stop + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        side = {name: values[start:stop] for name, values in self.side.items()}
        return replace(
            self, values=self.values[entries], latents=self.latents[entries], offsets=offsets - offsets[0], side=side
        )

    def to(self, device: torch.device | str) -> SparseCodes:
        """The same codes on a device, `side` included."""
        side = {name: values.to(device) for name, values in self.side.items()}
        values, latents, offsets = self.values.to(device), self.latents.to(device), self.offsets.to(device)
        return replace(self, values=values, latents=latents, offsets=offsets, side=side)

    def nonzero(self) -> SparseCodes:
        """The same codes without entries whose value is zero."""
        keep = self.values != 0
        if bool(keep.all()):
            return self
        rows = self.rows()[keep]
        return replace(
            self,
            values=self.values[keep],
            latents=self.latents[keep],
            offsets=self.offsets_from_rows(rows, self.n_rows),
        )

    def l0(self) -> Tensor:
        """`[B]` int64: entries that are not zero, in each row."""
        return self._counted(self.rows(), self.n_rows)

    def firings(self) -> Tensor:
        """`[d_sae]` int64: entries that are not zero, of each latent."""
        return self._counted(self.latents, self.d_sae)

    def _counted(self, places: Tensor, size: int) -> Tensor:
        """`[size]`: entries that are not zero, at each of `places [nnz]`. No device waits for it."""
        return places.new_zeros(size).index_add_(0, places, (self.values.detach() != 0).long())

    def scaled(self, factor: float) -> SparseCodes:
        """The same codes with `values * factor`."""
        return replace(self, values=self.values * factor)

    def clone(self) -> SparseCodes:
        """The same codes in memory of their own."""
        side = {name: values.clone() for name, values in self.side.items()}
        return replace(
            self, values=self.values.clone(), latents=self.latents.clone(), offsets=self.offsets.clone(), side=side
        )

    def detach(self) -> SparseCodes:
        """The same codes without gradient."""
        return replace(self, values=self.values.detach())
