"""Controls: SAEs that learn nothing, or nothing sparse. They hold buffers only; nothing has a gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from saebench.api import ActivationBatch, LossTerms, Site, SparseAutoencoder, SparseCodes, StepInfo, SuiteError
from saebench.nn import decode, decoder_directions, encode_topk, encoder_directions, tied_init
from saebench_plugins.controls.plugin import ControlConfig

FIT_TOKENS = 32_768
"""Tokens that the random control's mean and gain are fitted on."""


class Control(nn.Module):
    """What controls share: the loss, for the trajectory; there is nothing to train."""

    variance: Tensor

    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        self.d_in, self.d_sae = d_in, d_sae
        self.register_buffer("variance", torch.tensor(float(d_in)))

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of `x [B, d_in]`."""
        raise NotImplementedError

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        raise NotImplementedError

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token, without gradient."""
        codes = self.encode(batch.x)
        x_hat = self.decode(codes)
        return LossTerms((batch.target - x_hat).pow(2).sum(1) / self.variance, {}, codes, x_hat)

    def learned_values(self) -> int:
        """None."""
        return 0


class RandomDirections(Control):
    """k largest positive projections on random unit rows, decoded through the same rows with one least-squares gain.

    Attributes:
        W_dec: `[d_sae, d_in]`. b_dec: `[d_in]` the mean. gain: scalar.
    """

    W_dec: Tensor
    b_dec: Tensor
    gain: Tensor

    def __init__(self, config: ControlConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, config.d_sae)
        self.k = min(config.k, config.d_sae)
        self.register_buffer("W_dec", tied_init(config.d_sae, d_in, generator)[1])
        self.register_buffer("b_dec", torch.zeros(d_in))
        self.register_buffer("gain", torch.tensor(1.0))

    @property
    def W_enc(self) -> Tensor:
        """The same rows."""
        return self.W_dec

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], generator: torch.Generator) -> None:
        """Mean of the data, and the gain that fits `gain * sum f_j d_j` to `x - mean` best."""
        parts: list[Tensor] = []
        for x in batches:
            parts.append(x)
            if sum(len(part) for part in parts) >= FIT_TOKENS:
                break
        sample = torch.cat(parts)[:FIT_TOKENS]
        self.b_dec.copy_(sample.double().mean(0))
        self.gain.fill_(1.0)
        centred = (sample - self.b_dec).double()
        self.variance.fill_(float(centred.pow(2).sum(1).mean()) or 1.0)
        sums = torch.cat([self.decode(self.encode(x)) - self.b_dec for x in torch.split(sample, 4096)]).double()
        energy = float(sums.pow(2).sum())
        if energy > 0:
            self.gain.fill_(float((sums * centred).sum()) / energy)

    def encode(self, x: Tensor) -> SparseCodes:
        """k largest projections, rectified, times the gain."""
        codes = encode_topk(functional.linear(x - self.b_dec, self.W_dec), self.k)
        return replace(codes, values=codes.values.relu() * self.gain)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return decode(codes, self.W_dec, self.b_dec)

    def learned_values(self) -> int:
        """Mean and gain."""
        return self.d_in + 1


class PCA(Control):
    """The k leading components, the same for every token, signed.

    Attributes:
        W_dec: `[min(d_sae, d_in), d_in]` orthonormal rows by falling variance; the largest coordinate of each is
            positive.
        b_dec: `[d_in]` the mean.
    """

    W_dec: Tensor
    b_dec: Tensor

    def __init__(self, config: ControlConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, min(config.d_sae, d_in))
        self.k = min(config.k, self.d_sae)
        self.register_buffer("W_dec", torch.eye(d_in)[: self.d_sae].clone())
        self.register_buffer("b_dec", torch.zeros(d_in))

    @property
    def W_enc(self) -> Tensor:
        """The same rows."""
        return self.W_dec

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], generator: torch.Generator) -> None:
        """Eigenvectors of the covariance, summed in float64 around the first batch's mean."""
        n, shift, total, second = 0, None, torch.zeros(()), torch.zeros(())
        for x in batches:
            x = x.double()
            if shift is None:
                shift = x.mean(0)
                total, second = torch.zeros_like(shift), x.new_zeros(self.d_in, self.d_in)
            x = x - shift
            n, total, second = n + len(x), total + x.sum(0), second + x.T @ x
        if shift is None:
            raise SuiteError("control-pca: got no activations to fit. Give the dataset at least one batch.")
        mean = total / n
        covariance = second / n - torch.outer(mean, mean)
        self.variance.fill_(float(covariance.trace()) or 1.0)
        vectors = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)[: self.d_sae]
        peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        self.W_dec.copy_(vectors * torch.where(peak < 0, -1.0, 1.0))
        self.b_dec.copy_(shift + mean)

    def encode(self, x: Tensor) -> SparseCodes:
        """Coordinates along the k leading components."""
        values = functional.linear(x - self.b_dec, self.W_dec[: self.k])
        latents = torch.arange(self.k, device=x.device).expand(len(x), self.k)
        return SparseCodes.from_topk(values, latents, self.d_sae)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return decode(codes, self.W_dec, self.b_dec)

    def learned_values(self) -> int:
        """Components and mean."""
        return self.W_dec.numel() + self.d_in


class Identity(Control):
    """`x_hat = x`, exactly: latent j is coordinate j."""

    def __init__(self, d_in: int) -> None:
        super().__init__(d_in, d_in)

    def encode(self, x: Tensor) -> SparseCodes:
        """Every coordinate."""
        return SparseCodes.from_topk(x, torch.arange(self.d_in, device=x.device).expand(len(x), self.d_in), self.d_in)

    def decode(self, codes: SparseCodes) -> Tensor:
        """The codes."""
        return codes.to_dense()

    def decoder_directions(self) -> Tensor:
        """Coordinate axes."""
        return torch.eye(self.d_in, device=self.variance.device)

    def encoder_directions(self) -> Tensor:
        """Coordinate axes."""
        return self.decoder_directions()


class PermutedDecoder(Control):
    """The parent's codes, each decoded through another latent's row: right code statistics, wrong meaning.

    Attributes:
        base: The parent's module, with its weights.
        permutation: `[d_sae]` int64; latent j writes through the base's row `permutation[j]`.
    """

    permutation: Tensor

    def __init__(self, base: nn.Module, generator: torch.Generator) -> None:
        sae = cast(SparseAutoencoder, base)
        super().__init__(sae.d_in, sae.d_sae)
        self.base = base.requires_grad_(False)
        self.register_buffer("permutation", torch.randperm(sae.d_sae, generator=generator))

    @property
    def _sae(self) -> SparseAutoencoder:
        return cast(SparseAutoencoder, self.base)

    def encode(self, x: Tensor) -> SparseCodes:
        """The parent's codes."""
        codes = self._sae.encode(x)
        return SparseCodes.from_dense(codes) if isinstance(codes, Tensor) else codes

    def decode(self, codes: SparseCodes) -> Tensor:
        """The parent's reconstruction from permuted latents."""
        return self._sae.decode(replace(codes, latents=self.permutation[codes.latents]))

    def decoder_directions(self) -> Tensor:
        """The parent's rows, permuted."""
        return decoder_directions(self.base)[self.permutation]

    def encoder_directions(self) -> Tensor:
        """The parent's."""
        return encoder_directions(self.base)

    def facts(self) -> dict[str, Any]:
        """How much of the permutation moves anything."""
        return {
            "moved_latents": int((self.permutation != torch.arange(self.d_sae, device=self.permutation.device)).sum())
        }


def build_random(config: ControlConfig, *, site: Site, generator: torch.Generator) -> RandomDirections:
    """control-random."""
    return RandomDirections(config, site.d_in, generator)


def build_pca(config: ControlConfig, *, site: Site, generator: torch.Generator) -> PCA:
    """control-pca."""
    return PCA(config, site.d_in, generator)


def build_identity(config: ControlConfig, *, site: Site, generator: torch.Generator) -> Identity:
    """control-identity."""
    return Identity(site.d_in)


def build_permuted(
    config: ControlConfig, *, site: Site, generator: torch.Generator, base: nn.Module
) -> PermutedDecoder:
    """control-permuted, around the parent's module."""
    return PermutedDecoder(base, generator)
