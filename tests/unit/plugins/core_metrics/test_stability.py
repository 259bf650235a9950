"""Stability over seeds as the harness drives it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from saebench.api import GroupMember, MetricResult, SparseCodes
from saebench.api.specs import resolve
from saebench.matching import match
from saebench.matching.agreement.chance import null_scores
from saebench.matching.agreement.pair import CORRECTED
from saebench.metrics.catalogue import STABILITY
from saebench_plugins.core_metrics.plugin import METRICS

D_IN, D_SAE = 16, 24
BY_CODES = {"matched-correlation", "matched-correlation-null", "matched-correlation-corrected", "sfr-activation"}


class Sae(torch.nn.Module):
    """Directions of one's choice; keeps the `k` largest positive products."""

    def __init__(self, rows: torch.Tensor, encoder: torch.Tensor | None = None, k: int = 3, **extra: object) -> None:
        super().__init__()
        self.d_in, self.d_sae, self.k = D_IN, len(rows), k
        self.W_dec = torch.nn.Parameter(rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12))
        self.W_enc = torch.nn.Parameter((rows if encoder is None else encoder).clone())
        for name, value in extra.items():
            setattr(self, name, value)

    def encode(self, x: torch.Tensor) -> SparseCodes:
        values, latents = (x @ self.W_enc.T).topk(self.k)
        return SparseCodes.from_topk(values.clamp(min=0), latents, self.d_sae)


def stream(sae: Sae, batch: int = 100) -> Callable[[], Iterator[SparseCodes]]:
    x = torch.randn(400, D_IN, generator=torch.Generator().manual_seed(7))
    return lambda: (sae.encode(x[start : start + batch]) for start in range(0, len(x), batch))


def rows(seed: int, n: int = D_SAE) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def member(
    at: int, sae: Sae, dead: Sequence[int] | None = (), tags: Sequence[str] = (), codes: bool = True
) -> GroupMember:
    silent = None if dead is None else torch.tensor([j in dead for j in range(sae.d_sae)])
    density = torch.linspace(1e-4, 0.5, sae.d_sae)
    return GroupMember(
        f"s{at}",
        sae,  # type: ignore[arg-type]
        tags=frozenset(tags),
        dead=silent,
        facts={"init_seed": at},
        arrays={"density": density if silent is None else density * ~silent, "variance-share": density**2},
        codes=stream(sae) if codes else None,
    )


def measure(*members: GroupMember) -> MetricResult:
    spec = next(spec for spec in METRICS if spec.name == "stability")
    result: MetricResult = resolve(spec.make)().measure(members)
    assert list(result.values) == [info.id for info in STABILITY]
    json.dumps([value.to_json() for value in result.values.values()], allow_nan=False)
    json.dumps(dict(result.details), allow_nan=False)
    return result


def noisy(seed: int, size: float = 0.5) -> Sae:
    """One dictionary under noise of each seed."""
    return Sae(rows(0) + size * rows(seed + 1), rows(0) + size * rows(seed + 50))


def test_every_id_of_three_seeds() -> None:
    result = measure(*(member(seed, noisy(seed), dead=[seed, 5]) for seed in range(3)))
    values = result.values
    nulls = {id for id, value in values.items() if value.value is None}
    by_data = {f"{id}-data-null" for id in CORRECTED}
    assert nulls - by_data <= {"block-agreement", "subspace-agreement", "idealised-dictionary-size"}
    assert {values[id].reason for id in by_data} == {"the training data is not at hand"}
    assert values["block-agreement"].reason == "the latents do not come in blocks"
    for id in CORRECTED:
        score, level = values[id], values[f"{id}-null"]
        assert score.n == 3
        assert score.stderr is not None
        assert level.stderr is None
        pairs = result.details["stability-pairs"]
        mean = np.mean(
            [(pair["values"][id] - pair["values"][f"{id}-null"]) / (1 - pair["values"][f"{id}-null"]) for pair in pairs]
        )
        assert values[f"{id}-corrected"].value == pytest.approx(mean)
        assert values[f"{id}-corrected"].stderr is not None
    assert values["matched-cosine-null"].value == null_scores(D_SAE, D_SAE, D_IN).levels["matched-cosine"].value
    assert values["sfr-alive-null"].value == null_scores(22, 22, D_IN).levels["sfr"].value
    assert values["matched-correlation"].value > values["matched-correlation-null"].value  # type: ignore[operator]
    chance, score = values["matched-correlation-null"].value or 0.0, values["matched-correlation"].value or 0.0
    assert values["matched-correlation-corrected"].value == pytest.approx((score - chance) / (1 - chance))


def test_untrained_samples_of_the_training_data_are_the_larger_chance() -> None:
    asked = []

    def training(n: int) -> torch.Tensor:
        asked.append(n)
        x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(1))
        return 7 + x * torch.tensor([4.0, 2.0, *[0.2] * (D_IN - 2)])  # they vary in two directions

    found = [replace(member(seed, noisy(seed), dead=[seed, 5]), training=training) for seed in range(3)]
    result = measure(*found)
    assert len(asked) == 1  # members of one dataset share one sample
    values, told = result.values, result.details["stability-data-null"]
    for id in CORRECTED:
        level, random = values[f"{id}-data-null"], values[f"{id}-null"].value
        assert (told[id]["value"], told[id]["draws"]) == (level.value, 5)
        assert level.stderr is None
        assert level.value > random + 0.3
        mean = np.mean([(p["values"][id] - p["values"][f"{id}-data-null"]) / (1 - p["values"][f"{id}-data-null"])
                        for p in result.details["stability-pairs"]])  # fmt: skip
        assert values[f"{id}-corrected"].value == pytest.approx(mean)
    assert (told["sfr"]["n"], told["sfr-alive"]["n"]) == (D_SAE, 22)
    short = measure(*(replace(one, training=lambda n: torch.ones(3, D_IN)) for one in found))
    assert short.values["sfr-data-null"].reason == f"{2 * D_SAE} training tokens are needed for it, there are 3"
    assert short.values["sfr-corrected"].value == measure(*(
        replace(one, training=None) for one in found)).values["sfr-corrected"].value  # fmt: skip


def test_details_and_arrays_of_three_seeds() -> None:
    result = measure(*(member(seed, noisy(seed), dead=[seed, 5]) for seed in range(3)))
    details, values = result.details, result.values
    curve = details["sfr-curve"]
    at = curve["thresholds"].index(0.7)
    for id in ("sfr", "sfr-alive"):
        assert curve[id][at] == pytest.approx(values[id].value)
        assert curve["stderr"][id][at] == pytest.approx(values[id].stderr)
    assert curve["sfr-null"][at] == pytest.approx(values["sfr-null"].value)
    pairs = details["stability-pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("s0", "s1"), ("s0", "s2"), ("s1", "s2")]
    assert all(pair["proven"] and 0 <= pair["gap"] <= 1e-6 for pair in pairs)
    null = details["stability-null"]["sfr-alive"]
    assert (null["n"], null["m"], null["d"], null["draws"]) == (22, 22, D_IN, 10)
    assert null["low"] <= null["value"] <= null["high"]
    seen = details["reappearance"]
    assert (seen["seeds"], seen["share"], sum(seen["n"])) == (3, [0, 0.5, 1], 3 * 22)
    for key in ("by_density", "by_variance_share"):
        bins = seen[key]
        assert sum(bins["n"]) + bins["not_positive"]["n"] == 3 * 22
        assert len(bins["edges"]) == len(bins["n"]) + 1 == len(bins["mean"]) + 1 == len(bins["stderr"]) + 1
        assert bins["dead"]["n"] == 6
    share = np.concatenate([result.arrays[f"reappearance/s{seed}"].numpy() for seed in range(3)])
    assert np.bincount((2 * share).round().astype(int)).tolist()[1:] == seen["n"][1:]
    assert share[[0, 5, D_SAE + 1, D_SAE + 5]].tolist() == [0, 0, 0, 0]
    assert all(array.shape == (D_SAE,) and array.dtype == torch.float32 for array in result.arrays.values())
    assert {name.split("/")[0] for name in result.arrays} == {"reappearance", "matched-cosine"}
    totals = details["recapture"]
    assert totals["method"] == "chao2"
    assert totals["distinct"][0] == pytest.approx(22)
    assert totals["distinct"][-1] == values["distinct-latents"].value
    assert totals["estimate"] == values["idealised-dictionary-size"].value
    assert totals["stderr"] == values["idealised-dictionary-size"].stderr
    match_details = details["activation-match"]
    assert (match_details["tokens"], match_details["null"]["draws"]) == (400, 3)
    assert match_details["null"]["value"] == values["matched-correlation-null"].value


def test_identical_checkpoints_give_one() -> None:
    same = [Sae(rows(0)) for _ in range(3)]
    result = measure(*(member(at, sae) for at, sae in enumerate(same)))
    ones = {"sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs"}
    firing = len({latent for codes in stream(same[0])() for latent in codes.nonzero().latents.tolist()})
    for id in ones:
        assert result.values[id].value == pytest.approx(1)
        assert result.values[f"{id}-corrected"].value == pytest.approx(1)
        assert result.values[id].stderr == pytest.approx(0, abs=1e-12)
    assert result.values["matched-correlation"].value == pytest.approx(firing / D_SAE)
    assert result.values["distinct-latents"].value == D_SAE
    assert result.values["idealised-dictionary-size"].value == D_SAE
    assert all(bool((array == 1).all()) for name, array in result.arrays.items() if name.startswith("reappearance"))


def test_independent_dictionaries_are_at_chance() -> None:
    result = measure(*(member(seed, Sae(rows(seed), rows(seed + 20))) for seed in range(4)))
    for id in CORRECTED:
        assert result.values[f"{id}-corrected"].value == pytest.approx(0, abs=0.03)
    assert result.values["matched-correlation-corrected"].value < 0.25  # type: ignore[operator]


def test_two_seeds_have_no_error_and_use_chapman() -> None:
    result = measure(*(member(seed, noisy(seed)) for seed in range(2)))
    assert result.values["sfr"].stderr is None
    assert result.details["recapture"]["method"] == "chapman"
    assert result.details["activation-match"]["null"]["draws"] == 3
    assert result.details["reappearance"]["by_density"]["stderr"] == [None] * 12
    shared = match(noisy(0).W_dec, noisy(1).W_dec).cosines > 0.7
    assert result.values["distinct-latents"].value == 2 * D_SAE - shared.sum()


def test_other_masks_leave_the_activations() -> None:
    """Directions on other supports cannot be close, but what fires together can be compared."""
    members = [
        member(seed, Sae(rows(0) + 0.2 * rows(seed + 1), support_digest=lambda seed=seed: f"mask {seed}"))
        for seed in range(2)
    ]
    result = measure(*members)
    for id, value in result.values.items():
        if id in BY_CODES:
            assert value.value is not None
        elif id != "block-agreement":
            assert "frozen supports" in (value.reason or "")
    assert result.values["matched-correlation"].value > 0.3  # type: ignore[operator]
    assert set(result.details) == {"activation-match"}
    assert result.arrays == {}


def test_one_mask_has_its_own_chance_level() -> None:
    mask = torch.rand(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[:, 0] = True
    plain = measure(*(member(seed, Sae(rows(seed) * mask), tags=["signed_latents"]) for seed in range(3)))
    masked = measure(
        *(
            member(seed, Sae(rows(seed) * mask, support_digest=lambda: "mask"), tags=["signed_latents"])
            for seed in range(3)
        )
    )
    assert masked.values["sfr"].value == plain.values["sfr"].value
    assert masked.values["sfr-null"].value > plain.values["sfr-null"].value + 0.1  # type: ignore[operator]
    assert masked.values["sfr-corrected"].value == pytest.approx(0, abs=0.25)


def test_grouped_latents_are_compared_block_by_block() -> None:
    first = rows(0)
    rng = torch.Generator().manual_seed(3)
    turned = torch.cat([torch.linalg.qr(torch.randn(3, 3, generator=rng))[0] @ block for block in first.split(3)])
    saes = [Sae(first, group_size=3), Sae(turned[torch.arange(D_SAE).view(-1, 3).flip(0).flatten()], group_size=3)]
    for sae in saes:
        # all products, so that a block's codes turn with its rows
        sae.encode = lambda x, sae=sae: SparseCodes.from_dense(x @ sae.W_enc.T)  # type: ignore[method-assign, misc]
    result = measure(*(member(at, sae, tags=["grouped_latents"]) for at, sae in enumerate(saes)))
    assert result.values["matched-correlation"].value == pytest.approx(1, abs=1e-5)
    assert "not identified" in (result.values["sfr"].reason or "")
    assert "not identified" in (result.values["distinct-latents"].reason or "")
    # rows have norm 1 before and after, so each block spans what it spanned
    detail = result.details["block-agreement"]
    assert (detail["group_size"], detail["blocks"]) == (3, 8)
    assert result.values["block-agreement"].value == pytest.approx(1, abs=1e-5)
    apart = measure(*(member(at, Sae(rows(at), group_size=3), tags=["grouped_latents"]) for at in range(3)))
    null = apart.details["block-agreement"]["null"]
    assert apart.values["block-agreement"].value == pytest.approx(null["value"], abs=0.1)
    silent = measure(*(member(at, Sae(rows(at)), tags=["grouped_latents"]) for at in range(2)))
    assert "group_size" in (silent.values["block-agreement"].reason or "")
    uneven = measure(*(member(at, Sae(rows(at), group_size=5), tags=["grouped_latents"]) for at in range(2)))
    assert "does not divide" in (uneven.values["block-agreement"].reason or "")


def test_signed_latents_match_by_size() -> None:
    flipped = Sae(rows(0), encoder=-rows(0))
    flipped.W_dec.data.mul_(-1)
    both = [member(0, Sae(rows(0)), tags=["signed_latents"]), member(1, flipped, tags=["signed_latents"])]
    result = measure(*both)
    assert result.values["sfr"].value == 1
    assert result.values["sfr-null"].value == null_scores(D_SAE, D_SAE, D_IN, signed=False).levels["sfr"].value


def test_nulls_say_why() -> None:
    lone = measure(member(0, Sae(rows(0))))
    assert all("at least two" in (value.reason or "") for value in lone.values.values())
    no_codes = measure(*(member(at, noisy(at), codes=False) for at in range(2)))
    assert {id for id, value in no_codes.values.items() if "no stream of codes" in (value.reason or "")} == BY_CODES
    assert no_codes.values["sfr"].value is not None
    unknown = measure(*(member(at, noisy(at), dead=None) for at in range(3)))
    for id in ("sfr-alive", "sfr-alive-null", "sfr-alive-corrected"):
        assert unknown.values[id].reason == "it is not known which latents are dead"
    assert unknown.details["sfr-curve"]["sfr-alive"] is None
    all_dead = measure(member(0, noisy(0), dead=range(D_SAE)), member(1, noisy(1), dead=range(D_SAE)))
    assert all_dead.values["distinct-latents"].reason == "no latent is alive"
    one_dead = measure(member(0, noisy(0), dead=range(D_SAE)), member(1, noisy(1)), member(2, noisy(2)))
    assert one_dead.values["sfr-alive"].reason == "one SAE has no latent that is alive (in 2 of 3 pairs)"
    assert math.isfinite(one_dead.values["distinct-latents"].value or math.nan)


def test_arrays_that_are_not_known_are_named() -> None:
    members = [member(at, noisy(at)) for at in range(2)]
    bare = GroupMember("bare", noisy(5), dead=torch.zeros(D_SAE, dtype=torch.bool), codes=stream(noisy(5)))  # type: ignore[arg-type]
    seen = measure(*members, bare).details["reappearance"]
    assert seen["by_variance_share"] == {"reason": "the variance-share of latents is not known for bare"}
    assert seen["by_density"] == {"reason": "the density of latents is not known for bare"}
    assert sum(seen["n"]) == 3 * D_SAE


def test_the_order_of_members_does_not_matter() -> None:
    members = [member(seed, noisy(seed), dead=[seed]) for seed in range(3)]
    values, back = measure(*members).values, measure(*members[::-1]).values
    for id, value in values.items():
        if value.value is not None and not id.startswith("matched-correlation"):
            assert back[id].value == pytest.approx(value.value, rel=1e-9)
            assert back[id].stderr == (
                None if value.stderr is None else pytest.approx(value.stderr, rel=1e-6, abs=1e-9)
            )
    assert back["matched-correlation"].value == pytest.approx(values["matched-correlation"].value, rel=1e-9)


def test_pairs_are_all_pairs() -> None:
    pairs = measure(*(member(seed, noisy(seed)) for seed in range(4))).details["stability-pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(f"s{i}", f"s{j}") for i, j in combinations(range(4), 2)]
