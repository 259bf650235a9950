"""SAELens: `SAETrainer.step`: forward, losses, dead counts, backward, clip, Adam, schedules; without logging."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contenders import Contender, Setting, per_latent_thresholds, settle_thresholds, shrink


def build(setting: Setting) -> Contender:
    """`architecture`: topk or jumprelu (with a low learning rate, so that its L0 stays where it was set).

    `sparse`: its sparse activations, which need its decoder-norm rescaling off on the CPU.
    """
    import sae_lens

    options, sizes = setting.options, {"d_in": setting.d_in, "d_sae": setting.d_sae, "device": str(setting.device)}
    jumprelu = options.get("architecture") == "jumprelu"
    torch.random.manual_seed(0)  # SAELens draws its weights from the global generator; this process is only its own
    sae: Any
    if jumprelu:
        sae = sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(
                **sizes, jumprelu_sparsity_loss_mode="quadratic", target_l0=float(setting.k), l0_coefficient=1e-3
            )
        )
    else:
        sparse = bool(options.get("sparse", False))
        sae = sae_lens.TopKTrainingSAE(
            sae_lens.TopKTrainingSAEConfig(
                **sizes, k=setting.k, use_sparse_activations=sparse, rescale_acts_by_decoder_norm=not sparse
            )
        )
    from sae_lens.config import SAETrainerConfig

    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=setting.batch,
        lr=1e-5 if jumprelu else 3e-4,
        lr_end=1e-6,
        device=str(setting.device),
    )
    trainer: Any = sae_lens.SAETrainer(config, sae, data_provider=iter(()))
    if jumprelu:
        with torch.no_grad():
            pre = sae.encode_with_hidden_pre(setting.batches[0])[1]
            sae.threshold.copy_(per_latent_thresholds(pre, setting.k).clamp_min(1e-3))
            del pre

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    @torch.no_grad()
    def prepare() -> None:
        if setting.dead.numel():
            shrink(sae.W_enc.T, setting.dead)
            sae.b_enc[setting.dead] = 0.0
            trainer.n_forward_passes_since_fired[setting.dead] = config.dead_feature_window + 1

    @torch.no_grad()
    def before_turn() -> None:
        settle_thresholds(sae.encode_with_hidden_pre(setting.batches[0])[1], sae.threshold, setting.k)

    @torch.no_grad()
    def facts() -> dict[str, Any]:
        codes = sae.encode_with_hidden_pre(setting.batches[0])[0]
        codes = codes.to_dense() if codes.is_sparse else codes
        return {"l0": float((codes != 0).sum() / codes.shape[0]), "dead": int(trainer.dead_neurons.sum())}

    return Contender(step, prepare, before_turn if jumprelu else lambda: None, facts)
