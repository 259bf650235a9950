"""eai-sparsify's TopK with its Adam: the body of `Trainer.fit` for one module, without the language model, logging and
data parallelism.

Left out, to its advantage: the copy of all activations in its forward hook, and the row masks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contenders import Contender, Setting, shrink


def build(setting: Setting) -> Contender:
    """`auxk`: its `auxk_alpha` (its default is 0)."""
    from sparsify import SparseCoder, SparseCoderConfig, TrainConfig
    from transformers import get_linear_schedule_with_warmup

    torch.set_float32_matmul_precision("high")  # as Trainer.fit does; no effect on this CPU's float32
    coder_config = SparseCoderConfig(num_latents=setting.d_sae, k=setting.k)
    config = TrainConfig(
        coder_config, optimizer="adam", auxk_alpha=setting.options.get("auxk", 0.0), log_to_wandb=False
    )
    sae = SparseCoder(setting.d_in, coder_config, setting.device, dtype=torch.float32)
    sae.b_dec.data = setting.batches[0].mean(0)
    adam = torch.optim.Adam([{"params": sae.parameters(), "lr": 2e-4 / (sae.num_latents / (2**14)) ** 0.5}])
    scheduler = get_linear_schedule_with_warmup(adam, config.lr_warmup_steps, 100_000)
    silent = torch.zeros(setting.d_sae, dtype=torch.long, device=setting.device)
    did_fire = torch.zeros(setting.d_sae, dtype=torch.bool, device=setting.device)
    seen: dict[str, Any] = {}

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        dead_mask = silent > config.dead_feature_threshold if config.auxk_alpha > 0 else None
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = sae(x=x, y=x, dead_mask=dead_mask, total_variance=total_variance)
        did_fire[out.latent_indices.flatten()] = True
        seen["fvu"] = float(out.fvu.detach())
        if config.auxk_alpha > 0:
            seen["auxk"] = float(out.auxk_loss.detach())
        (out.fvu + config.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        scheduler.step()
        with torch.no_grad():
            silent.add_(x.shape[0])
            silent[did_fire] = 0
            did_fire.zero_()

    @torch.no_grad()
    def prepare() -> None:
        if setting.dead.numel():
            shrink(sae.encoder.weight, setting.dead)
            sae.encoder.bias[setting.dead] = 0.0
            silent[setting.dead] = config.dead_feature_threshold + 1

    return Contender(step, prepare, facts=lambda: dict(seen))
