"""Broken architectures, each with one fault, by the rule that must find it; a plugin file as `--plugin` takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from saebench.api import ArchitectureSpec, Cost, LossTerms, SparseCodes, hookimpl
from saebench.nn import autograd_loss_and_grad
from saebench.nn.kernels import backends


@dataclass(frozen=True)
class Config:
    d_sae: int = 32


@dataclass
class Thawed:
    d_sae: int = 32


class Sound(nn.Module):
    """`f = ReLU(W_enc (x - b_dec) + b_enc)`, `x_hat = W_dec^T f + b_dec`. The others change it in one place each."""

    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__()
        self.d_in, self.d_sae = site.d_in, config.d_sae
        rows = normalize(torch.randn(self.d_sae, self.d_in, generator=generator), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(self.d_sae)), nn.Parameter(torch.zeros(self.d_in))

    def encode(self, x: Any) -> Any:
        return ((x - self.b_dec) @ self.W_enc.T + self.b_enc).relu()

    def decode(self, codes: Any) -> Any:
        return codes.to_dense() @ self.W_dec + self.b_dec

    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        z = Sound.encode(self, batch.x)
        error = batch.target - z @ self.W_dec - self.b_dec
        return LossTerms(error.square().mean(1), {"l1": 0.01 * z.sum(1).mean()})


class Misspelt(Sound):
    def finalise(self, batches: Any) -> None:
        """Never called."""


class Double(Sound):
    def encode(self, x: Any) -> Any:
        return super().encode(x).double()

    def decode(self, codes: Any) -> Any:
        return codes.to_dense().float() @ self.W_dec + self.b_dec


class Half(Sound):
    def decode(self, codes: Any) -> Any:
        return super().decode(codes).half()


class OnlyWide(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        assert config.d_sae > site.d_in, "too few latents"
        super().__init__(config, site=site, generator=generator)


class GlobalBuild(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__(config, site=site, generator=torch.Generator().manual_seed(int(generator.initial_seed())))
        torch.rand(1)


class GlobalLoss(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        return super().training_loss(replace(batch, x=batch.x + 0.1 * torch.randn_like(batch.x)), step)


class GlobalAfterStep(Sound):
    def after_step(self, after: Any) -> None:
        self.b_enc.add_(0.0 * torch.rand(self.d_sae))


class Reseeds(Sound):
    def encode(self, x: Any) -> Any:
        torch.manual_seed(0)
        return super().encode(x)


class OwnNoise(Sound):
    noise = torch.Generator()

    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        x = batch.x + 0.1 * torch.randn(batch.x.shape, generator=self.noise)
        return super().training_loss(replace(batch, x=x), step)


class OneSeed(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__(config, site=site, generator=torch.Generator().manual_seed(0))


class ReadsValues(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__(config, site=site, generator=generator)
        float(self.W_enc.detach().norm())


class Transposed(Sound):
    def decode(self, codes: Any) -> Any:
        return super().decode(codes).T


class NoEmptyBatch(Sound):
    def encode(self, x: Any) -> Any:
        x.max()
        return super().encode(x)


class Squeezes(Sound):
    def decode(self, codes: Any) -> Any:
        return super().decode(codes).squeeze(0) if codes.n_rows == 1 else super().decode(codes)


class LossOverVariance(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        terms = super().training_loss(batch, step)
        return replace(terms, reconstruction=terms.reconstruction / batch.x.var(0).mean())


class Normalises(Sound):
    def encode(self, x: Any) -> Any:
        centred = x - self.b_dec
        return (centred / centred.norm(dim=1, keepdim=True)) @ self.W_enc.relu().T.relu()


class CleansNaN(Sound):
    def encode(self, x: Any) -> Any:
        return super().encode(x.nan_to_num())


class WritesX(Sound):
    def encode(self, x: Any) -> Any:
        x -= 1e-3
        return super().encode(x)


class Counts(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__(config, site=site, generator=generator)
        self.register_buffer("fired", torch.zeros(self.d_sae))

    def encode(self, x: Any) -> Any:
        z = super().encode(x)
        self.fired += (z > 0).float().sum(0).detach()
        return z


class Remembers(Sound):
    last: Any = 0.0

    def encode(self, x: Any) -> Any:
        z = super().encode(x) + (super().encode(x) > 0) * self.last
        self.last = 0.1 * float(x.detach().nan_to_num().abs().mean()) if len(x) else 0.0
        return z


class LargeBatchThreshold(Sound):
    def encode(self, x: Any) -> Any:
        z = super().encode(x)
        return z * (z > z.mean()) if len(x) > 100 else z


class DenserByBatch(Sound):
    def encode(self, x: Any) -> Any:
        z = super().encode(x)
        return z if len(x) % 256 else z * (z >= z.topk(4, dim=1).values[:, -1:])


class FirstRow(Sound):
    def encode(self, x: Any) -> Any:
        z = super().encode(x)
        return torch.cat([z[:1] * 1.1, z[1:]]) if len(x) == 100 else z


class DecodesCache(Sound):
    def encode(self, x: Any) -> Any:
        self._cached = x.detach()
        return super().encode(x)

    def decode(self, codes: Any) -> Any:
        return self._cached.clone()


class DecodesClassCache(Sound):
    cached: Any = None

    def encode(self, x: Any) -> Any:
        type(self).cached = x.detach()
        return super().encode(x)

    def decode(self, codes: Any) -> Any:
        return self.cached.clone()


class DecodesSide(Sound):
    def encode(self, x: Any) -> Any:
        codes = SparseCodes.from_dense(super().encode(x))
        return SparseCodes(codes.values, codes.latents, codes.offsets, codes.d_sae, {"x": x})

    def decode(self, codes: Any) -> Any:
        return codes.side["x"] + 0.0


class Constant(Sound):
    def decode(self, codes: Any) -> Any:
        return self.b_dec.expand(codes.n_rows, -1).clone()


class SummedLoss(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        terms = super().training_loss(batch, step)
        return replace(terms, reconstruction=terms.reconstruction.mean())


class NegativeFlops(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        return replace(super().training_loss(batch, step), flops=-(10**9))


class ForgedXHat(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        return replace(super().training_loss(batch, step), x_hat=batch.target)


class NoBiasGradient(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        z = ((batch.x - self.b_dec) @ self.W_enc.T + self.b_enc.detach()).relu()
        return LossTerms((batch.target - z @ self.W_dec - self.b_dec).square().mean(1))


class WrongByHand(Sound):
    def loss_and_grad(self, batch: Any, step: Any, token_weights: Any = None) -> LossTerms:
        terms = autograd_loss_and_grad(self, batch, step, token_weights)
        self.W_enc.grad.mul_(1.01)
        return terms


class WrongInFloat32(Sound):
    def loss_and_grad(self, batch: Any, step: Any, token_weights: Any = None) -> LossTerms:
        terms = autograd_loss_and_grad(self, batch, step, token_weights)
        if batch.x.dtype == torch.float32:
            self.W_dec.grad.mul_(1.1)
        return terms


class WrongOnTheScreen(Sound):
    def loss_and_grad(self, batch: Any, step: Any, token_weights: Any = None) -> LossTerms:
        terms = autograd_loss_and_grad(self, batch, step, token_weights)
        if batch.x.dtype == torch.float32 and backends.current() == "bf16-screen":
            self.W_dec.grad.mul_(1.1)
        return terms


class Climbs(Sound):
    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        return LossTerms(-super().training_loss(batch, step).reconstruction)


class GainOutside(Sound):
    gain = 1.0

    def finalize(self, batches: Any) -> None:
        self.gain = 0.5

    def decode(self, codes: Any) -> Any:
        return self.gain * super().decode(codes)


GAINS = [1.0]


class GainOfTheProcess(Sound):
    def finalize(self, batches: Any) -> None:
        GAINS[0] = 0.5

    def decode(self, codes: Any) -> Any:
        return GAINS[0] * super().decode(codes)


class DecoderTransposed(Sound):
    def __init__(self, config: Any, *, site: Any, generator: Any) -> None:
        super().__init__(config, site=site, generator=generator)
        self.W_dec = nn.Parameter(self.W_dec.detach().T.contiguous())

    def decode(self, codes: Any) -> Any:
        return codes.to_dense() @ self.W_dec.T + self.b_dec

    def training_loss(self, batch: Any, step: Any) -> LossTerms:
        z = self.encode(batch.x)
        return LossTerms((batch.target - z @ self.W_dec.T - self.b_dec).square().mean(1))


def priced(parameters: int = 0, flops: float = 1.0, workspace: float = 1.0) -> Any:
    """A cost that is off in one place."""

    def cost(config: Any, site: Any) -> Cost:
        matrix = config.d_sae * site.d_in
        values = 2 * matrix + config.d_sae + site.d_in
        return Cost(
            n_parameters=values + parameters,
            stored_bytes=4 * values,
            train_flops_per_token=int(flops * 12 * matrix),
            train_flops_per_active=0,
            step_flops=15 * values,
            encode_flops_per_token=2 * matrix,
            workspace_bytes_per_token=int(workspace * (16 * config.d_sae + 24 * site.d_in)),
        )

    return cost


RULE_OF = {
    Misspelt: "the module is an SAE, and no method is misspelt",
    Double: "parameters, codes and reconstructions are float32",
    Half: "parameters, codes and reconstructions are float32",
    OnlyWide: "it fits every width, below and above that of the activations",
    GlobalBuild: "random numbers come from the given generator",
    GlobalLoss: "random numbers come from the given generator",
    GlobalAfterStep: "random numbers come from the given generator",
    Reseeds: "random numbers come from the given generator",
    OwnNoise: "one seed gives one set of bits",
    OneSeed: "another seed gives other weights",
    ReadsValues: "it is built without memory",
    Transposed: "encode and decode have the right shapes",
    NoEmptyBatch: "a batch of no rows is encoded and decoded",
    Squeezes: "a batch of one row is encoded, decoded and has a loss",
    LossOverVariance: "a batch of one row is encoded, decoded and has a loss",
    Normalises: "rows that are zero, constant, long or equal to b_dec are finite",
    CleansNaN: "a row of NaN is seen, and changes no other row",
    WritesX: "inputs are left as they are",
    Counts: "encode and decode change nothing in the module",
    Remembers: "calls are forgotten",
    LargeBatchThreshold: "a token's codes do not depend on its batch",
    DenserByBatch: "a token's codes do not depend on its batch",
    FirstRow: "a token's codes do not depend on its batch",
    DecodesCache: "codes are all that decode reads",
    DecodesClassCache: "codes are all that decode reads",
    DecodesSide: "codes are all that decode reads",
    Constant: "codes are all that decode reads",
    SummedLoss: "the loss is per token and finite",
    NegativeFlops: "the loss is per token and finite",
    ForgedXHat: "the x_hat of the loss is the reconstruction",
    NoBiasGradient: "every parameter receives a gradient",
    WrongByHand: "gradients by hand are those of the loss",
    WrongInFloat32: "gradients by hand are those of the loss",
    WrongOnTheScreen: "gradients by hand are those of the loss",
    Climbs: "training lowers the error",
    GainOutside: "saving and loading changes nothing",
    GainOfTheProcess: "another process loads it",
    DecoderTransposed: "directions are [d_sae, d_in]",
}
BROKEN: dict[str, tuple[ArchitectureSpec, str]] = {
    kind.__name__: (ArchitectureSpec(kind.__name__, "1", Config, kind), rule) for kind, rule in RULE_OF.items()
} | {
    "thawed": (
        ArchitectureSpec("thawed", "1", Thawed, Sound),
        "the spec is well formed, and its config a frozen dataclass",
    ),
    "miscounted": (
        ArchitectureSpec("miscounted", "1", Config, Sound, priced(parameters=1)),
        "cost counts the parameters and the bytes",
    ),
    "cheap": (
        ArchitectureSpec("cheap", "1", Config, Sound, priced(flops=0.1)),
        "a step takes the FLOPs that its cost says",
    ),
    "small": (
        ArchitectureSpec("small", "1", Config, Sound, priced(workspace=0.05)),
        "a step takes the memory that its cost says",
    ),
}


@hookimpl
def saebench_architectures() -> list[ArchitectureSpec]:
    """All of them."""
    return [spec for spec, _ in BROKEN.values()]
