"""How tables show core metrics, by id, in the order of the columns; and which of them rank. Loads no torch."""

from __future__ import annotations

from dataclasses import replace

from saebench.api.values import Column

_FIDELITY, _TRUTH, _SEEDS = "fidelity", "ground truth", "stability over seeds"
COLUMNS = {
    id: replace(column, place=place)
    for place, (id, column) in enumerate(
        {
            "l0": Column("L0", decimals=1, hint="mean number of active latents a token", terminal="L0"),
            "variance-explained": Column(
                "variance explained", _FIDELITY, hint="1 - FVU, per-dimension means removed",
                terminal="var. expl.", chart="l0",
            ),
            "ce-recovered-zero": Column(
                "CE recovered (zero)", _FIDELITY,
                hint="share of the loss between zero ablation and the clean model won back",
            ),
            "ce-recovered-mean": Column(
                "CE recovered (mean)", _FIDELITY, hint="the same against mean ablation, the harder floor",
                terminal="CE rec.", chart="l0",
            ),
            "kl": Column(
                "KL (nats)", _FIDELITY, hint="KL of next-token distributions, clean model to spliced model"
            ),
            "truth-mcc": Column(
                "MCC", _TRUTH, hint="mean cosine of true features with their matched latents",
                terminal="MCC", chart="l0",
            ),
            "truth-f1": Column("F1", _TRUTH, hint="matched latents as detectors of true features"),
            "truth-uniqueness": Column("uniqueness", _TRUTH, hint="latents that follow a feature of their own"),
            "dead-fraction": Column(
                "dead", decimals=1, percent=True, hint="latents silent on all density tokens"
            ),
            "dense-fraction-10pct": Column(
                "dense", decimals=1, percent=True, hint="latents active on over 10 % of density tokens"
            ),
            "sfr": Column(
                "SFR", _SEEDS,
                hint="shared features: matched pairs with cosine > 0.7, over the smaller dictionary",
            ),
            "sfr-alive": Column(
                "SFR alive", _SEEDS, hint="the same with dead latents dropped before matching", terminal="SFR alive"
            ),
            "sfr-alive-corrected": Column(
                "SFR alive, corrected", _SEEDS,
                hint="SFR alive over chance: (SFR - chance) / (1 - chance), "
                "chance being random directions of the same shape",
                terminal="SFR alive", replaces=("sfr-alive",),
            ),
            "strict-shared": Column(
                "strict shared", _SEEDS, main=False,
                hint="decoder and encoder matchings pair the same latents, both cosines at least 0.7",
            ),
            "matched-cosine": Column(
                "matched cosine", _SEEDS, hint="mean decoder cosine under exact one-to-one matching"
            ),
            "matched-cosine-null": Column(
                "null", _SEEDS, hint="matched cosine of random directions of the same shape: the level of chance"
            ),
            "mmcs": Column(
                "MMCS", _SEEDS, main=False,
                hint="mean over latents of the best cosine with any latent of the other SAE (many to one)",
            ),
            "matched-correlation": Column(
                "matched correlation", _SEEDS, main=False,
                hint="mean Pearson correlation of codes on held-out tokens under their own one-to-one matching",
            ),
            "block-agreement": Column(
                "blocks", _SEEDS, main=False,
                hint="mean cos² of principal angles between blocks of latents matched one to one, "
                "the share of one random pair taken out",
            ),
            "subspace-agreement": Column(
                "orphans' subspace", _SEEDS, main=False,
                hint="how far the unmatched latents of both span one subspace; chance is taken out already",
            ),
        }.items()
    )
}  # fmt: skip
RANKED = ("variance-explained", "ce-recovered-mean", "kl", "truth-mcc", "truth-f1")
