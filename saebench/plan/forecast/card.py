"""Seconds on a card that was not measured: what its data sheet promises, and which share of that is assumed.

Each stage of a step takes its FLOPs at the rate of its precision, or its bytes at that of the memory; stages follow one
another, so their seconds add up. Where launching the kernels takes longer than running them, that is what a step takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saebench.api.specs import Cost
from saebench.cells.cell import Cell, ModelUse
from saebench.plan.forecast.devices import Device
from saebench.plan.forecast.rates import Assumed, ModelRate, TrainingRate

if TYPE_CHECKING:
    from saebench.lm.facts import ModelFacts

PRODUCT_SHARE = 0.8
"""Of the peak, for a large product: 790 of 989 TFLOP/s in bfloat16 is what we were told of an H200."""
FORWARD_SHARE = {"float32": 0.6, "bfloat16": 0.3, "float16": 0.3}
"""Of the peak, for a whole forward of a language model in batches of 4,096 tokens, by precision."""
BYTES_SHARE = 0.72
"""Of the memory's rate, for passes and gathers: 0.8 of the 0.9 that a copy reaches on an H200 (4.3 of 4.8 TB/s)."""
STEP_LAUNCH_S = 0.0015
"""A step of about two hundred small kernels, launched one by one."""
SCORE_BATCH, SCORE_LAUNCHES = 2048, 300
"""Tokens of a scoring batch, and what its metrics launch."""
LAYER_LAUNCHES, LAUNCH_S = 25, 6e-6
"""Kernels of one block of a language model; one launch with Python's part of it."""
PRE_ACT_PASSES = 12
"""How often the `[B, n]` float32 pre-activations are written or read: once written, and then as often as torch's `topk`
takes time for (FlashInfer's pull request 3009 gives it 3.0 ms for 1.07 GB, on a card that it does not name)."""
PARAMETER_BYTES = 64
"""Read and written a step for each parameter: Adam 28, the gradient 4, clipping 12; projection 28 and unit rows 12 of
a decoder, which is half of the parameters."""
GATHER_BYTES = 2
"""For each sparse FLOP: a gathered value of 4 bytes is multiplied and added once."""
LOGIT_PASSES = 6
"""How often `[tokens, vocabulary]` float32 logits are written or read: logits, their logarithms, both losses."""
READ_BYTE_S = 5e-10
"""A byte of a store from a disk of 2 GB/s."""


class Card(Assumed):
    """A GPU of the table."""

    read_byte_s = READ_BYTE_S

    def __init__(self, device: Device) -> None:
        self.device = device
        self._bytes_per_s = BYTES_SHARE * device.bytes_per_s
        self._product = PRODUCT_SHARE * device.float32_flops

    def training(self, cell: Cell, cost: Cost) -> TrainingRate:
        """Of training a cell, in float32."""
        batch = cell.train.batch
        dense_s = (batch * cost.train_flops_per_token + cost.step_flops) / self._product
        # active latents are gathered, or all of them multiplied where that is cheaper
        active = cost.expected_l0 if cost.expected_l0 is not None else cell.d_sae
        latents_s = min(active * GATHER_BYTES / self._bytes_per_s, cell.d_sae / self._product)
        sparse_s = batch * cost.train_flops_per_active * latents_s
        moved = 4 * PRE_ACT_PASSES * batch * cell.d_sae + PARAMETER_BYTES * cost.n_parameters
        step_s = max(STEP_LAUNCH_S, dense_s + sparse_s + moved / self._bytes_per_s)
        return TrainingRate(0.5, step_s, self._encode_s(cell, cost))

    def score_token_s(self, cell: Cell, cost: Cost) -> float:
        """Of a token of a scoring pass, without the language model."""
        return max(SCORE_LAUNCHES * LAUNCH_S / SCORE_BATCH, self._encode_s(cell, cost))

    def model(self, use: ModelUse, facts: ModelFacts) -> ModelRate:
        """Of a language model at its context: weights, attention, logits."""
        from saebench.lm.loaded import FORWARD_TOKENS
        from saebench.lm.sampling import SAMPLE_ROWS

        peak = self.device.float32_flops if use.load.dtype == "float32" else self.device.half_flops
        flops = facts.forward_flops_per_token()
        attention = 4 * use.context * facts.d_model * facts.n_layers  # two products over all places of the context
        launch_s = facts.n_layers * LAYER_LAUNCHES * LAUNCH_S
        weights_s = use.load.parameter_bytes * facts.n_parameters / self._bytes_per_s
        forward_s = (flops + attention) / (FORWARD_SHARE[use.load.dtype] * peak)  # a token
        token_s = max(forward_s, (launch_s + weights_s) / FORWARD_TOKENS)
        logits_s = 4 * LOGIT_PASSES * facts.vocab_size / self._bytes_per_s
        sample_s = max(forward_s, (launch_s + weights_s) / SAMPLE_ROWS) + logits_s
        clean_s = token_s + logits_s
        return ModelRate(token_s / flops, sample_s, clean_s, 3 * clean_s)

    def basis(self) -> dict[str, Any]:
        """What the estimate says of it."""
        device = self.device
        return {
            "device": device.name,
            "gpu": device.title,
            "data_sheet": device.source,
            "float32_flops_per_s": device.float32_flops,
            "half_flops_per_s": device.half_flops,
            "bytes_per_s": device.bytes_per_s,
            "product_share": PRODUCT_SHARE,
            "forward_share": dict(FORWARD_SHARE),
            "bytes_share": BYTES_SHARE,
        }

    def _encode_s(self, cell: Cell, cost: Cost) -> float:
        moved = 4 * PRE_ACT_PASSES * cell.d_sae
        return cost.encode_flops_per_token / self._product + moved / self._bytes_per_s
