"""What each core metric id means and how tables show it: read by specs and by accumulators. Loads no torch."""

from __future__ import annotations

from dataclasses import replace

from saebench.api.values import Column, Direction, MetricInfo, Scale, Unit

_FIDELITY, _TRUTH, _SEEDS = "fidelity", "ground truth", "stability over seeds"
_COLUMNS = {
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
                hint="SFR alive over chance: (SFR - chance) / (1 - chance), chance being the larger of what random "
                "directions and untrained samples of the training activations reach",
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
            "matched-cosine-data-null": Column(
                "data null", _SEEDS,
                hint="matched cosine of untrained samples: centred activations of random training tokens",
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
_RANKED: dict[str, Scale] = {"variance-explained": "log-complement", "ce-recovered-mean": "log-complement", "kl": "log"}
_RANKED |= {"truth-mcc": "logit", "truth-f1": "logit"}


def _family(
    family: str, *rows: tuple[str, Unit, Direction, str], measured: tuple[str, ...] = ()
) -> tuple[MetricInfo, ...]:
    return tuple(
        MetricInfo(
            id, unit, direction, family, text, id in measured, _COLUMNS.get(id),
            ranks=id in _RANKED, scale=_RANKED.get(id, "identity"),
        )
        for id, unit, direction, text in rows
    )  # fmt: skip


RECONSTRUCTION = _family(
    "reconstruction",
    (
        "fvu", "fraction", "lower",
        "Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean x||^2 over all tokens.",
    ),
    ("variance-explained", "fraction", "higher", "1 - fvu: 1 is perfect, 0 is no better than predicting the mean."),
    ("mse", "squared activation", "lower", "Mean over tokens of ||x - x_hat||^2 (summed over coordinates)."),
    (
        "fvu-median-token", "fraction", "lower",
        "Median over tokens of ||x - x_hat||^2, over the mean of ||x - mean x||^2: fvu without the pull of extreme "
        "tokens.",
    ),
    ("cosine", "ratio", "higher", "Mean over tokens of cos(x, x_hat); a zero vector counts 0."),
    ("l2-ratio", "ratio", "neutral", "Mean over tokens of ||x_hat|| / ||x||; under 1 is shrinkage."),
    (
        "relative-bias", "ratio", "neutral",
        "sum ||x_hat||^2 / sum <x, x_hat>; under 1 is shrinkage (Gated SAE paper, eq. 10).",
    ),
)  # fmt: skip

LOSSES = _family(
    "reconstruction",
    ("ce-clean", "nats", "neutral", "Next-token cross-entropy of the model as it is."),
    ("ce-spliced", "nats", "lower", "Cross-entropy with the SAE's reconstruction in place of the activation."),
    ("ce-zero", "nats", "neutral", "Cross-entropy with zeros in place of the activation."),
    ("ce-mean", "nats", "neutral", "Cross-entropy with the mean held-out activation in place of the activation."),
    ("ce-recovered-zero", "fraction", "higher", "(CE zero - CE spliced) / (CE zero - CE clean)."),
    ("ce-recovered-mean", "fraction", "higher", "(CE mean - CE spliced) / (CE mean - CE clean)."),
    ("kl", "nats", "lower", "Mean over tokens of KL(clean || spliced) between next-token distributions."),
    ("kl-recovered", "fraction", "higher", "1 - KL spliced / KL zero."),
)

ROUNDED = _family("sparsity", ("fvu-16bit", "fraction", "lower", "fvu from codes that are rounded to bfloat16."))
"""Beside RECONSTRUCTION, where codes were also decoded in 16 bits: one sum of variance serves both."""

SPARSITY = _family(
    "sparsity",
    ("l0", "latents", "neutral", "Mean number of latents a token whose value is not zero."),
    ("l0-p5", "latents", "neutral", "5th percentile over tokens of the number of active latents."),
    ("l0-p95", "latents", "neutral", "95th percentile over tokens of the number of active latents."),
    ("l1", "activation", "neutral", "Mean over tokens of sum |f_j| ||d_j||, decoder norms folded in."),
    ("values-per-token", "values", "neutral", "Price of a code: active latents and side values, mean a token."),
    ("bits-per-token", "bits", "neutral", "Entropies of the latents' densities, and 16 bits for each value a token."),
)

DENSITY = _family(
    "density",
    ("dead-fraction", "fraction", "lower", "Fraction of latents silent on all n tokens."),
    ("ultralow-fraction", "fraction", "lower", "Fraction of latents with 0 < density < 1e-5; needs 1,000,000 tokens."),
    ("dense-fraction-1pct", "fraction", "neutral", "Fraction of latents that fire on more than 1 % of tokens."),
    ("dense-fraction-10pct", "fraction", "neutral", "Fraction of latents that fire on more than 10 % of tokens."),
    ("dense-mass-10pct", "fraction", "neutral", "Share of all firings by latents that fire on over 10 % of tokens."),
)

TRUTH = _family(
    "truth",
    (
        "truth-mcc",
        "fraction",
        "higher",
        "Mean |cos| of decoder rows with the true features, matched one to one, over the smaller count.",
    ),
    (
        "truth-f1",
        "fraction",
        "higher",
        "Mean F1 of firing: matched latent against its true feature, over features that occur.",
    ),
    (
        "truth-uniqueness",
        "fraction",
        "higher",
        "Distinct true features that are the nearest one of some latent, over the number of latents.",
    ),
)

_CHANCE: tuple[tuple[str, Unit], ...] = (
    ("sfr", "fraction"), ("sfr-alive", "fraction"), ("strict-shared", "fraction"),
    ("matched-cosine", "ratio"), ("mmcs", "ratio"),
)  # fmt: skip
_NULLS = {
    "null": "random directions of the same counts and width",
    "data-null": "untrained dictionaries of the same counts: centred activations of random training tokens",
}

STABILITY = _family(
    "stability",
    (
        "sfr", "fraction", "higher",
        "Shared feature ratio: one-to-one matched decoder pairs with cosine > 0.7, over the smaller dictionary.",
    ),
    ("sfr-alive", "fraction", "higher", "sfr with each SAE's own dead latents dropped before matching."),
    (
        "strict-shared", "fraction", "higher",
        "Latents whose decoder and encoder matchings agree with both cosines >= 0.7, over the smaller dictionary.",
    ),
    ("matched-cosine", "ratio", "higher", "Mean cosine of decoder rows matched one to one."),
    ("matched-cosine-null", "ratio", "neutral", f"matched-cosine of {_NULLS['null']}."),
    (
        "mmcs", "ratio", "higher",
        "Mean over latents of the best cosine with any latent of the other SAE, both ways (many to one).",
    ),
    (
        "subspace-agreement", "ratio", "higher",
        "Mean squared cosine of principal angles between the spans of unmatched latents, 0 at chance, 1 when equal.",
    ),
    *(
        (f"{id}-{null}", unit, "neutral", f"{id} of {what}.")
        for null, what in _NULLS.items()
        for id, unit in _CHANCE
        if (id, null) != ("matched-cosine", "null")
    ),
    *(
        (
            f"{id}-corrected", unit, "higher",
            f"({id} - chance) / (1 - chance), chance the larger null: 0 at chance, 1 where {id} is 1.",
        )
        for id, unit in _CHANCE
    ),
    (
        "matched-correlation", "ratio", "higher",
        "Mean over latents of the correlation of codes on held-out tokens, matched one to one by it; unmatched and "
        "silent latents count 0.",
    ),
    (
        "matched-correlation-null", "ratio", "neutral",
        "matched-correlation with one SAE's tokens turned round: what equally active latents give by chance.",
    ),
    (
        "matched-correlation-corrected", "ratio", "higher",
        "(matched-correlation - chance) / (1 - chance): 0 at chance, 1 where every latent fires as its match.",
    ),
    (
        "sfr-activation", "fraction", "higher",
        "Latents matched by activations with a correlation > 0.7, over the smaller dictionary.",
    ),
    (
        "block-agreement", "ratio", "higher",
        "Grouped latents: mean squared cosine of principal angles between blocks matched one to one, one random "
        "pair's r/d taken out.",
    ),
    (
        "distinct-latents", "latents", "neutral",
        "Distinct alive latents that all seeds find together; matched cosine > 0.7 is the same latent.",
    ),
    (
        "idealised-dictionary-size", "latents", "neutral",
        "Distinct latents that ever more seeds would find: capture-recapture (Chao2; Chapman for two seeds). No bound; "
        "given only where thresholds of 0.6 to 0.8 agree on it.",
    ),
)  # fmt: skip

ACROSS: tuple[str, ...] = ("seeds", "datasets", "both")
"""What two members of an agreement group differ in: the init seed, the training dataset, or both."""
_DIFFERENCE = {
    "seeds": "same dataset, other init seed",
    "datasets": "same init seed, other dataset",
    "both": "other dataset and other init seed",
}

AGREEMENT = _family(
    "stability",
    *(
        (f"{id}-across-{kind}", unit, "neutral", f"{id}, mean over the pairs of SAEs with {_DIFFERENCE[kind]}.")
        for id, unit in _CHANCE
        if id != "strict-shared"
        for kind in ACROSS
    ),
    (
        "dataset-over-seed", "fraction", "neutral",
        "sfr-alive across seeds minus sfr-alive across datasets: positive where the dataset matters more than the "
        "seed.",
    ),
)  # fmt: skip

COST = _family(
    "cost",
    ("train-tokens", "tokens", "neutral", "Tokens this SAE was trained on."),
    ("train-flops", "flops", "lower", "FLOPs that training this SAE needs (the model's forward stands apart)."),
    ("train-device-s", "seconds", "lower", "Seconds of training on the device."),
    ("peak-memory-bytes", "bytes", "lower", "Largest memory held while training."),
    ("data-cost-tokens", "tokens", "lower", "Tokens spent on making the training data (samples, retrieval)."),
    ("stored-bytes", "bytes", "lower", "Bytes needed to store the SAE."),
    ("learned-values", "values", "lower", "Number of learned values."),
    ("encode-tokens-per-s", "tokens/s", "higher", "Tokens encoded a second while scoring."),
    measured=("train-device-s", "peak-memory-bytes", "encode-tokens-per-s"),
)

INFO: dict[str, MetricInfo] = {
    info.id: info
    for info in (*RECONSTRUCTION, *ROUNDED, *LOSSES, *SPARSITY, *DENSITY, *TRUTH, *STABILITY, *AGREEMENT, *COST)
}
"""Every core metric by id (those of faithfulness are in their plugin)."""
