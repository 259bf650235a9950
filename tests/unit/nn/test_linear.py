"""Rescaled, and what LinearSAE starts with."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

import saebench.nn
from saebench.api import ActivationBatch, LossTerms, SparseCodes, StepInfo
from saebench.nn import (
    LinearSAE,
    Rescaled,
    decoder_directions,
    encoder_directions,
    linear_threshold,
    stored_bytes,
)


class Plain(LinearSAE):
    """A ReLU SAE."""

    def encode(self, x: Tensor) -> SparseCodes:
        return linear_threshold(x - self.b_dec, self.W_enc, self.b_enc, 0.0)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        x_hat = self.decode(self.encode(batch.x))
        return LossTerms(self.reconstruction(x_hat, batch.target))


class Dense(Plain):
    """The same, answering densely."""

    def encode(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().encode(x).to_dense()


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(n: int = 200) -> Tensor:
    return torch.randn(n, 6, generator=gen(9)) * 3 + 1


@pytest.mark.parametrize("kind", [Plain, Dense])
def test_rescaled_reads_and_writes_the_units_outside(kind: type[Plain]) -> None:
    sae, x = kind(6, 10, gen()), sample()
    sae.init_from_data(x / 4, gen())
    outer = Rescaled(sae, 4.0)
    codes = outer.encode(x)
    inner = Plain.encode(sae, x / 4)
    torch.testing.assert_close(codes.to_dense(), inner.to_dense() * 4)
    torch.testing.assert_close(outer.decode(codes), LinearSAE.decode(sae, inner) * 4)
    assert (outer.d_in, outer.d_sae) == (6, 10)
    torch.testing.assert_close(decoder_directions(outer), sae.W_dec.detach())
    torch.testing.assert_close(encoder_directions(outer), sae.W_enc.detach())
    assert getattr(outer, "support_digest", None) is None


def test_rescaled_by_one_is_the_same_and_by_zero_is_refused() -> None:
    sae, x = Plain(6, 10, gen()), sample()
    torch.testing.assert_close(Rescaled(sae, 1.0).decode(sae.encode(x)), sae.decode(sae.encode(x)))
    with pytest.raises(ValueError, match="scale must be positive"):
        Rescaled(sae, 0.0)


def test_start_of_a_linear_sae() -> None:
    sae, x = Plain(6, 10, gen()), sample(2000)
    sae.init_from_data(x, gen())
    torch.testing.assert_close(sae.b_dec.detach(), torch.ones(6), atol=0.3, rtol=0)
    assert float(sae.variance) == pytest.approx(float((x - x.mean(0)).pow(2).sum(1).mean()), rel=1e-5)
    codes = sae.encode(x)
    assert sae.fit_encoder_scale(x, codes) < 1
    after = (sae.decode(sae.encode(x)) - sae.b_dec).detach()
    centred = (x - sae.b_dec).detach()
    # The fitted scale leaves no part of the reconstruction in the residual: <x_hat, x - x_hat> = 0.
    assert float((after * (centred - after)).sum()) == pytest.approx(0.0, abs=1e-3 * float(centred.pow(2).sum()))
    assert stored_bytes(sae) == 4 * (2 * 60 + 10 + 6 + 1)


def test_the_mean_predictor_has_loss_one() -> None:
    sae, x = Plain(6, 10, gen()), sample(2000)
    sae.init_from_data(x, gen())
    losses = sae.reconstruction(x.mean(0).expand_as(x), x)
    assert losses.shape == (2000,)
    assert float(losses.mean()) == pytest.approx(1.0, abs=1e-5)


def test_every_public_name_is_there() -> None:
    assert {"LinearSAE", "linear_select", "expander_topk"} < set(saebench.nn.__all__)
    for name in saebench.nn.__all__:
        assert getattr(saebench.nn, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = saebench.nn.nonsense  # type: ignore[attr-defined]
    assert "topk" in dir(saebench.nn)


def test_planning_loads_no_torch() -> None:
    modules = [
        "saebench.nn.cost",
        *(
            f"saebench_plugins.{name}.plugin"
            for name in ("topk", "jumprelu", "expander", "ssae", "baselines", "controls")
        ),
    ]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
