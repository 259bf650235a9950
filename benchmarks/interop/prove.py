"""Random SAEs saved by the published packages, read by saebench: largest differences of codes and reconstructions,
as fractions of the largest value.

`python benchmarks/interop/prove.py PACKAGES`: PACKAGES is a folder that `pip install --target` filled with sae-lens,
eai-sparsify and dictionary-learning. It prints a row a case, and one for each package that cannot be imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saebench

D_IN, D_SAE, K = 32, 96, 8
Case = tuple[str, Any, Callable[[Path], object], Callable[[Tensor], tuple[Tensor, Tensor]]]


def _random(module: Any) -> Any:
    """Weights of a size at which every part matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 2 else 0.5))
        if isinstance(getattr(module, "threshold", None), torch.nn.Parameter):
            module.threshold.abs_()
    return module


def sparsify() -> Iterator[Case]:
    from sparsify import SparseCoder, SparseCoderConfig

    for activation in ("topk", "groupmax"):
        sae = _random(SparseCoder(D_IN, SparseCoderConfig(activation=activation, num_latents=D_SAE, k=K)))

        def run(x: Tensor, sae: Any = sae) -> tuple[Tensor, Tensor]:
            found = sae.encode(x)
            dense = torch.zeros(len(x), D_SAE).scatter(1, found.top_indices, found.top_acts)
            return dense, sae.decode(found.top_acts, found.top_indices)

        yield f"sparsify {activation}", sae, sae.save_to_disk, run


def sae_lens() -> Iterator[Case]:
    from sae_lens import (
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )

    sizes = {"d_in": D_IN, "d_sae": D_SAE}
    for name, sae in {
        "standard": StandardSAE(StandardSAEConfig(**sizes)),
        "standard, no b_dec": StandardSAE(StandardSAEConfig(**sizes, apply_b_dec_to_input=False)),
        "standard, layer_norm": StandardSAE(StandardSAEConfig(**sizes, normalize_activations="layer_norm")),
        "standard, constant_norm": StandardSAE(
            StandardSAEConfig(**sizes, normalize_activations="constant_norm_rescale")
        ),
        "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(**sizes)),
        "topk": TopKSAE(TopKSAEConfig(**sizes, k=K)),
        "topk, rescaled": TopKSAE(TopKSAEConfig(**sizes, k=K, rescale_acts_by_decoder_norm=True)),
        "gated": GatedSAE(GatedSAEConfig(**sizes)),
    }.items():
        yield f"SAELens {name}", _random(sae), sae.save_model, lambda x, sae=sae: (f := sae.encode(x), sae.decode(f))


def dictionary_learning() -> Iterator[Case]:
    from dictionary_learning import dictionary as d
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    batch, nested = BatchTopKSAE(D_IN, D_SAE, K), MatryoshkaBatchTopKSAE(D_IN, D_SAE, K, [32, 64])
    batch.threshold.fill_(0.7)
    nested.threshold.fill_(0.7)
    for sae in (
        d.AutoEncoderNew(D_IN, D_SAE), d.GatedAutoEncoder(D_IN, D_SAE), d.JumpReluAutoEncoder(D_IN, D_SAE),
        AutoEncoderTopK(D_IN, D_SAE, K), batch, nested,
    ):  # fmt: skip

        def save(folder: Path, sae: Any = sae) -> None:
            torch.save(sae.state_dict(), folder / "ae.pt")
            config = {"trainer": {"dict_class": type(sae).__name__, "activation_dim": D_IN, "dict_size": D_SAE}}
            (folder / "config.json").write_text(json.dumps(config))

        name = f"dictionary_learning {type(sae).__name__}"
        yield name, _random(sae), save, lambda x, sae=sae: (f := sae.encode(x), sae.decode(f))


@torch.no_grad()
def main(packages: str) -> None:
    """A row a case."""
    sys.path.append(packages)
    torch.manual_seed(0)
    x = 2 * torch.randn(256, D_IN) + 0.3
    print("| case | active | largest difference of codes | of reconstructions |\n|---|---|---|---|")
    for package in (sparsify, sae_lens, dictionary_learning):
        try:
            for name, _, save, run in package():
                with tempfile.TemporaryDirectory() as folder:
                    save(Path(folder))
                    sae: Any = saebench.load_sae(folder)
                codes = sae.encode(x)
                f, x_hat = run(x)
                active = float((f != 0).double().mean())
                off = [
                    float((a - b).abs().max() / b.abs().max())
                    for a, b in ((codes.to_dense(), f), (sae.decode(codes), x_hat))
                ]
                print(f"| {name} | {active:.2f} | {off[0]:.1e} | {off[1]:.1e} |", flush=True)
        except ImportError as error:
            print(f"| {package.__name__} | | not importable: {error} | |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
