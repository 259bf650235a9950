"""What most SAEs share, and what wraps them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from saebench.api.batches import ActivationBatch
from saebench.api.codes import SparseCodes
from saebench.api.sae import Constraint, LossTerms, SparseAutoencoder, StepInfo, UnitRows
from saebench.nn.init import geometric_median, tied_init, total_variance
from saebench.nn.kernels.autograd import decode


class LinearSAE(nn.Module):
    """An SAE with a linear encoder and decoder. Subclasses say how latents are chosen: `encode` and `training_loss`.

    `x_hat = codes @ W_dec + b_dec`, codes chosen from `pre_acts = (x - b_dec) @ W_enc.T + b_enc`.

    At the start both matrices hold the same random unit rows, `b_enc` is zero and `b_dec` the geometric median of the
    init sample; W_enc is then scaled by one number, so that reconstructions have the right size. Rows of W_dec stay at
    norm 1 (applied by the harness). Losses are divided by `variance`, the init sample's total variance, so that their
    mean is about the FVU at any width and scale.

    Attributes:
        W_enc, W_dec: `[d_sae, d_in]`. b_enc: `[d_sae]`. b_dec: `[d_in]`.
        variance: Scalar buffer, mean of `||x - mean||^2` on the init sample.
    """

    variance: Tensor

    def __init__(self, d_in: int, d_sae: int, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in, self.d_sae = d_in, d_sae
        W_enc, W_dec = tied_init(d_sae, d_in, generator)
        self.W_enc, self.W_dec = nn.Parameter(W_enc), nn.Parameter(W_dec)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.tensor(float(d_in)))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias and loss scale from a sample `[N, d_in]`."""
        self.b_dec.copy_(geometric_median(x))
        self.variance.fill_(total_variance(x) or 1.0)

    @torch.no_grad()
    def fit_encoder_scale(self, x: Tensor, codes: SparseCodes) -> float:
        """Scale W_enc by the g that fits `g * (x_hat - b_dec)` to `x - b_dec` best; for the end of `init_from_data`.

        Chosen directions overlap, so summing their projections overshoots, and a short run would spend itself on
        shrinking. Gao et al. divide W_enc by the mean reconstruction norm of random unit vectors; we fit on data. [our
        reconstruction]

        Args:
            x: `[N, d_in]`. codes: Theirs, while `b_enc` is zero.

        Returns:
            g; 1 where nothing fires or the fit is not positive.
        """
        centred, made = (x - self.b_dec).double(), (self.decode(codes) - self.b_dec).double()
        energy, overlap = float(made.pow(2).sum()), float((made * centred).sum())
        scale = overlap / energy if energy > 0 and overlap > 0 else 1.0
        self.W_enc.mul_(scale)
        return scale

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of `x [B, d_in]`."""
        raise NotImplementedError

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return decode(codes, self.W_dec, self.b_dec)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """Loss terms of one batch."""
        raise NotImplementedError

    def reconstruction(self, x_hat: Tensor, target: Tensor) -> Tensor:
        """`[B]`: `||target - x_hat||^2 / variance`."""
        return (target - x_hat).pow(2).sum(1) / self.variance

    def constraints(self) -> dict[str, Constraint]:
        """Decoder rows have norm 1."""
        return {"W_dec": UnitRows()}


class Rescaled(nn.Module):
    """An SAE trained on `x / scale`, as one that reads and writes x.

    Everything but `encode` and `decode` is the inner one's.

    Codes are in units of x: `encode(x) = scale * inner.encode(x / scale)` and `decode` the other way round.
    """

    def __init__(self, inner: nn.Module, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"Rescaled: scale must be positive, got {scale}")
        self.inner, self.scale = inner, float(scale)

    @property
    def _sae(self) -> SparseAutoencoder:
        return cast(SparseAutoencoder, self.inner)

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of `x [B, d_in]`, in units of x."""
        codes = self._sae.encode(x / self.scale)
        if isinstance(codes, Tensor):
            codes = SparseCodes.from_dense(codes)
        return codes.scaled(self.scale)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_out]`, in units of x."""
        return self._sae.decode(codes.scaled(1 / self.scale)) * self.scale

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def decoder_directions(sae: Any) -> Tensor:
    """`[d_sae, d_out]` that each latent writes: the module's own answer, else its `W_dec`."""
    own = getattr(sae, "decoder_directions", None)
    found: Tensor = own() if own is not None else sae.W_dec
    return found.detach()


def encoder_directions(sae: Any) -> Tensor:
    """`[d_sae, d_in]` that each latent reads: the module's own answer, else its `W_enc`."""
    own = getattr(sae, "encoder_directions", None)
    found: Tensor = own() if own is not None else sae.W_enc
    return found.detach()


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the state dict."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
