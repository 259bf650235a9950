"""Columns of the main table: which metrics a reader sees first, in which order and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of the main table.

    Attributes:
        id: Metric id, or `cost:<name>`.
        label: Heading.
        family: Heading above it.
        decimals: Digits after the point.
        percent: Shown as a percentage (records hold fractions).
        hint: One line shown on hover and in the legend.
    """

    id: str
    label: str
    family: str
    decimals: int = 3
    percent: bool = False
    hint: str = ""

    @property
    def heading(self) -> str:
        """Label with its unit."""
        return f"{self.label} %" if self.percent else self.label


COLUMNS = (
    Column("l0", "L0", "sparsity", 1, hint="mean number of active latents a token"),
    Column("variance-explained", "variance explained", "fidelity", hint="1 - FVU, per-dimension means removed"),
    Column(
        "ce-recovered-zero",
        "CE recovered (zero)",
        "fidelity",
        hint="share of the loss between zero ablation and the clean model won back",
    ),
    Column(
        "ce-recovered-mean", "CE recovered (mean)", "fidelity", hint="the same against mean ablation, the harder floor"
    ),
    Column("kl", "KL (nats)", "fidelity", hint="KL of next-token distributions, clean model to spliced model"),
    Column("truth-mcc", "MCC", "ground truth", hint="mean cosine of true features with their matched latents"),
    Column("truth-f1", "F1", "ground truth", hint="matched latents as detectors of true features"),
    Column("truth-uniqueness", "uniqueness", "ground truth", hint="latents that follow a feature nobody else follows"),
    Column("dead-fraction", "dead", "density", 1, True, "latents silent on all density tokens"),
    Column("dense-fraction-10pct", "dense", "density", 1, True, "latents active on over 10 % of density tokens"),
    Column("ffr-random", "random", "FFR", 1, True, "fake features: latents over the threshold on random tokens"),
    Column("ffr-text", "text", "FFR", 1, True, "latents over the threshold on held-out text"),
    Column("ffr-self", "self", "FFR", 1, True, "latents over the threshold on the model's own samples"),
    Column(
        "sfr",
        "SFR",
        "stability over seeds",
        hint="shared features: matched pairs above the cosine threshold, over the smaller dictionary",
    ),
    Column("sfr-alive", "SFR alive", "stability over seeds", hint="the same with dead latents dropped before matching"),
    Column(
        "sfr-alive-corrected",
        "SFR alive, corrected",
        "stability over seeds",
        hint="SFR alive over chance: (SFR - chance) / (1 - chance), chance being random directions of the same shape",
    ),
    Column(
        "matched-cosine",
        "matched cosine",
        "stability over seeds",
        hint="mean decoder cosine under exact one-to-one matching",
    ),
    Column(
        "matched-cosine-null",
        "null",
        "stability over seeds",
        hint="matched cosine of random directions of the same shape: the level of chance",
    ),
    Column(
        "cost:train",
        "training",
        "tokens",
        hint="tokens the contender itself was trained on; of a search, all its candidates",
    ),
    Column("cost:all", "all\N{NON-BREAKING HYPHEN}in", "tokens", hint="training + data making + parent"),
)
