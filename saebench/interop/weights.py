"""A finished SAE as numbers: what every library's folder is turned into, and what is folded on the way.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.base.text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Tensors = Mapping[str, Floats]

ARCHITECTURE = "external"
"""Name of the architecture whose module these weights fill."""


@dataclass(frozen=True, eq=False)
class Weights:
    """An SAE in the units of the activations.

    `pre = encoder @ (n(x) - b_in) + b_enc`; kept are the `k` largest, or those above `threshold`; never one under zero.
    `x_hat = m(codes @ decoder + b_dec)`. `n` is `normalise`, `m` undoes it.

    Attributes:
        encoder, decoder: `[d_sae, d]`, a row a latent.
        b_enc, threshold: `[d_sae]`. b_in, b_dec: `[d]`.
        k: Latents kept for a token; None: all above their thresholds.
        groups: Of each of `k` equal groups of latents the largest is kept.
        normalise: Of each token: `none`, `layer_norm` (mean 0, deviation 1) or `constant_norm` (norm sqrt(d)).
    """

    encoder: Floats
    decoder: Floats
    b_enc: Floats
    b_in: Floats
    b_dec: Floats
    threshold: Floats
    k: int | None = None
    groups: bool = False
    normalise: str = "none"

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.decoder)

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.encoder.shape[1])

    def config(self) -> dict[str, Any]:
        """The config of architecture `external` that fits them."""
        return {"d_sae": self.d_sae, "k": self.k, "groups": self.groups, "normalise": self.normalise}

    def arrays(self) -> dict[str, Floats]:
        """The state of a module of architecture `external`."""
        return {
            "W_enc": self.encoder, "W_dec": self.decoder, "b_enc": self.b_enc, "b_in": self.b_in, "b_dec": self.b_dec,
            "threshold": self.threshold,
        }  # fmt: skip

    def scaled(self, factor: float) -> Weights:
        """Of an SAE that reads and writes `factor * x`: the one that reads and writes x. Codes stay as they are."""
        return replace(
            self,
            encoder=self.encoder * factor,
            b_in=self.b_in / factor,
            decoder=self.decoder / factor,
            b_dec=self.b_dec / factor,
        )

    def unit_decoder(self) -> Weights:
        """The same reconstructions from decoder rows of norm 1: each code is multiplied by the norm of its row."""
        norms = np.linalg.norm(self.decoder, axis=1)
        norms = np.where(norms > 0, norms, 1).astype(self.decoder.dtype)
        return replace(
            self,
            encoder=self.encoder * norms[:, None],
            b_enc=self.b_enc * norms,
            threshold=self.threshold * norms,
            decoder=self.decoder / norms[:, None],
        )


class Reader:
    """Takes tensors by name from one file and says which was lacking or of a wrong shape.

    Args:
        tensors: By name.
        path: Their file, for messages.
    """

    def __init__(self, tensors: Tensors, path: Path) -> None:
        self._tensors, self.path, self._taken = tensors, path, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def array(self, name: str, ndim: int) -> Floats:
        """The tensor of this name.

        Raises:
            SuiteError: It is not there, has another number of axes, or values that are not finite.
        """
        self._taken.add(name)
        if name not in self._tensors:
            names = ", ".join(one_line(other, 40) for other in self._tensors) or "none"
            raise SuiteError(
                f"{self.path}: tensor {name} is missing (found: {names}). Restore the file from its source."
            )
        found = self._tensors[name]
        if found.ndim != ndim:
            raise SuiteError(f"{self.path}: {name} has shape {list(found.shape)}, expected {ndim} axes.")
        if not np.isfinite(found).all():
            raise SuiteError(f"{self.path}: {name} holds values that are not finite. Restore the file from its source.")
        return found

    def matrix(self, name: str, *, columns: bool = False) -> Floats:
        """A matrix with a row a latent; `columns`: it is stored with a column a latent."""
        found = self.array(name, 2)
        return np.ascontiguousarray(found.T if columns else found)

    def vector(self, name: str, size: int, *, default: float | None = None) -> Floats:
        """A vector `[size]`; a scalar is spread; where it is not stored, `default`."""
        if name not in self._tensors and default is not None:
            return np.full(size, default, np.float32)
        if name in self._tensors and self._tensors[name].size == 1:
            self._taken.add(name)
            return np.full(size, self._tensors[name].item(), self._tensors[name].dtype)
        found = self.array(name, 1)
        if len(found) != size:
            raise SuiteError(f"{self.path}: {name} has {len(found)} values, expected {size}.")
        return found

    def ignore(self, *names: str) -> None:
        """These say nothing of codes or reconstructions."""
        self._taken.update(names)

    def all_taken(self) -> None:
        """Refuses a file with tensors that nobody read: the SAE does something that is not known here.

        Raises:
            SuiteError: There are some.
        """
        if left := [one_line(name, 40) for name in self._tensors if name not in self._taken]:
            raise SuiteError(
                f"{self.path}: {', '.join(left)} is not known here, so codes and reconstructions would be wrong. "
                "Only plain SAEs are read: an encoder, biases, thresholds, a decoder."
            )


def refused(path: Path, what: str, todo: str) -> SuiteError:
    """The error of an SAE that cannot be read rightly."""
    return SuiteError(f"{path}: {what}, so its codes and reconstructions cannot be had rightly. {todo}")


def linear(read: Reader, encoder: Floats, decoder: Floats, **more: Any) -> Weights:
    """Weights of two matrices, checked; what is left out is zero.

    Raises:
        SuiteError: Shapes do not fit, or it writes another width than it reads.
    """
    d_sae, d_in = encoder.shape
    if decoder.shape[1] != d_in:
        raise refused(read.path, f"it reads {d_in} values and writes {decoder.shape[1]}", "Transcoders are not scored.")
    if decoder.shape[0] != d_sae:
        raise SuiteError(f"{read.path}: {d_sae} latents in the encoder, {len(decoder)} in the decoder.")
    zero = {"b_enc": d_sae, "threshold": d_sae, "b_in": d_in, "b_dec": d_in}
    parts = {name: more.pop(name, None) for name in zero}
    filled = {name: np.zeros(zero[name], encoder.dtype) if part is None else part for name, part in parts.items()}
    filled["threshold"] = np.maximum(filled["threshold"], 0)  # a code is never under zero
    k = more.get("k")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= d_sae):
        raise SuiteError(f"{read.path}: k is {k!r}, allowed is a whole number from 1 to {d_sae}.")
    everything: dict[str, Any] = {**filled, **more}
    return Weights(encoder, decoder, **everything)
