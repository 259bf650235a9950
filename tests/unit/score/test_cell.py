from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch

from saebench.api import Diverged, MetricResult, MetricValue, PluginError, SparseCodes
from saebench.metrics.reconstruction import FvuAccumulator, ReconstructionSums
from saebench.score import score_cell
from saebench.score.one_pass import batch_size


def score(kit, *specs, sae=None, decoder=None, sources=None, **changes):
    sae = sae or kit.Identity()
    return score_cell(
        kit.cell(*specs, **changes),
        sae,
        sources or [(kit.docs, 0, kit.Source())],
        kit.catalog,
        kit.training,
        decoder=decoder or deepcopy(sae),
    )


def fvu_spec(kit):
    class Fvu:
        def __init__(self, context):
            self.sums = ReconstructionSums(context.d_in)

        def update(self, stream, scored):
            assert scored.codes is None  # not asked for
            self.sums.add(scored.batch.target, scored.x_hat, scored.batch.sequence_ids)

        def compute(self):
            return MetricResult({"fvu": self.sums.fvu(), "variance-explained": self.sums.variance_explained()})

    return kit.metric("reconstruction", "fvu", "variance-explained", fields=("reconstruction",), make=Fvu)


def test_identity_explains_all_and_the_mean_nothing(kit):
    perfect = score(kit, fvu_spec(kit)).metrics
    assert perfect["fvu"]["value"] == 0.0
    assert perfect["variance-explained"]["value"] == 1.0
    source = kit.Source()
    mean = kit.Identity(value=source.x[:100].mean(0))
    by_mean = score(kit, fvu_spec(kit), sae=mean).metrics
    assert by_mean["variance-explained"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert by_mean["fvu"]["n"] == 100
    assert by_mean["fvu"]["stderr"] is not None


def test_the_shape_of_a_metric_s_entry(kit):
    outcome = score(kit, kit.metric("m", "a"), sources=[(kit.docs, 3, kit.Source())])
    assert outcome.metrics["a"] == {
        "value": 100.0, "unit": "ratio", "direction": "lower", "n": 100, "stderr": 1.0, "reason": None, "on": "docs",
        "parts": [
            {"dataset": "docs", "seed": 3, "slice": None, "value": 100.0, "stderr": 1.0, "n": 100, "reason": None}
        ],
    }  # fmt: skip
    assert outcome.metric_info["a"] == {
        "family": "test",
        "description": "test metric a",
        "unit": "ratio",
        "direction": "lower",
        "measured": False,
        "column": None,
    }
    assert outcome.metric_versions == {"m": "7"}
    assert outcome.sae_facts == {"kind": "identity"}
    assert outcome.evaluation["datasets"] == [
        {
            "name": "docs",
            "recipe": "recipe-docs",
            "content": "digest",
            "n_tokens": 100,
            "n_loss_tokens": 32,
            "n_density_tokens": 150,
            "overlap": None,
            "splice": None,
        }
    ]
    json.dumps([outcome.metrics, outcome.evaluation, outcome.details, outcome.spent], allow_nan=False)


def test_headline_is_the_mean_over_seeds_on_the_first_dataset(kit):
    sources = [
        (kit.docs, 0, kit.Source(n_eval=80)),
        (kit.docs, 1, kit.Source(n_eval=100)),
        (kit.near, 0, kit.Source(n_eval=10)),
    ]
    entry = score(kit, kit.metric("m", "a"), sources=sources).metrics["a"]
    assert (entry["value"], entry["n"], entry["stderr"], entry["on"]) == (90.0, 180, 1.0, "docs")
    assert [(part["dataset"], part["seed"], part["value"]) for part in entry["parts"]] == [
        ("docs", 0, 80.0),
        ("docs", 1, 100.0),
        ("near", 0, 10.0),
    ]


def test_a_null_part_makes_the_headline_null_with_its_reason(kit):
    def compute(self, provided):
        value = None if self.n == 100 else 1.0
        return MetricResult(
            {provided[0].id: MetricValue.of(provided[0], value, self.n, reason="too long" if value is None else None)}
        )

    sources = [(kit.docs, 0, kit.Source(n_eval=80)), (kit.docs, 1, kit.Source(n_eval=100))]
    entry = score(kit, kit.metric("m", "a", compute=compute), sources=sources).metrics["a"]
    assert entry["value"] is None
    assert entry["stderr"] is None
    assert entry["reason"] == "evaluation seed 1: too long"
    assert score(kit, kit.metric("m", "a", compute=compute), sources=sources[1:]).metrics["a"]["reason"] == "too long"


def raising(*args):
    raise TypeError("a slip\nwith a second line")


@pytest.mark.parametrize(
    "broken",
    [
        lambda kit: kit.metric("broken", "b", "c", update=raising),
        lambda kit: kit.metric("broken", "b", "c", compute=raising),
        lambda kit: kit.metric("broken", "b", "c", make=raising),
    ],
)
def test_a_metric_that_raises_empties_its_own_ids_alone(kit, broken):
    outcome = score(kit, broken(kit), kit.metric("fine", "a"))
    for id in ("b", "c"):
        assert outcome.metrics[id]["value"] is None
        assert outcome.metrics[id]["reason"] == "TypeError: a slip"
    assert outcome.metrics["a"]["value"] == 100.0


def test_what_a_metric_forgets_or_mistakes_is_null_with_a_reason(kit):
    half = kit.metric("half", "b", "c", compute=lambda self, provided: MetricResult({"b": 1.0}))
    none = kit.metric("none", "d", compute=lambda self, provided: None)
    metrics = score(kit, half, none).metrics
    assert "returned float for it" in metrics["b"]["reason"]
    assert "metric 'half' returned nothing for it" in metrics["c"]["reason"]
    assert "must return saebench.api.MetricResult, got NoneType" in metrics["d"]["reason"]


def test_each_thing_is_made_once_and_only_where_needed(kit):
    source, sae, decoder = kit.Source(), kit.Identity(), kit.Identity()
    outcome = score(
        kit,
        kit.metric("m", "a"),
        kit.metric("n", "b", streams=("density", "eval")),
        sae=sae,
        decoder=decoder,
        sources=[(kit.docs, 0, source)],
    )
    # eval is a prefix of density: two of its batches are the same, the last one is short
    assert outcome.spent["tokens"] == 64 + 36 + 64 + 22
    assert decoder.decoded == 0
    assert source.asked == ["eval", "density"]
    assert outcome.metrics["b"]["value"] == 250.0
    assert outcome.spent == {"tokens": 186, "flops": 186 * 11 + 300}
    decoder = kit.Identity()
    score(kit, kit.metric("m", "a"), kit.metric("n", "b", fields=("reconstruction",)), sae=sae, decoder=decoder)
    assert 100 <= decoder.decoded <= 100 + 10 * 64  # once, and a sample
    assert (sae.decoded, decoder.encoded) == (0, 0)  # each does its own


def test_streams_that_are_absent_are_told(kit):
    def make(context):
        assert "self-sampled" not in context.streams
        reasons.append(context.absent["self-sampled"])
        raise ValueError(context.absent["self-sampled"])

    reasons: list[str] = []
    entry = score(kit, kit.metric("m", "a", streams=("self-sampled",), make=make)).metrics["a"]
    assert entry["reason"] == "ValueError: an encoder cannot sample"
    assert reasons


def test_losses_are_spliced_with_reconstructions_of_all_positions(kit):
    def update(self, stream, scored):
        assert stream == "loss"
        assert scored.losses.ce_spliced.shape == scored.batch.x.shape[:1] == scored.x_hat.shape[:1]
        torch.testing.assert_close(scored.codes.to_dense(), scored.batch.x)
        self.total = getattr(self, "total", 0.0) + float(scored.losses.kl_spliced.sum())

    def compute(self, provided):
        return MetricResult({"kl": MetricValue.of(provided[0], self.total, self.n)})

    spec = kit.metric(
        "losses", "kl", streams=("loss",), fields=("losses", "codes", "reconstruction"), update=update, compute=compute
    )
    entry = score(kit, spec).metrics["kl"]
    assert entry["value"] == 0.0
    assert entry["n"] == 20


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        (("losses",), {"losses"}),
        (("codes",), {"codes"}),
        (("truth",), {"codes"}),
        (("reconstruction",), {"x_hat"}),
        ((), set()),
    ],
)
def test_stream_loss_hands_out_what_was_asked_for(kit, fields, given):
    seen = []
    spec = kit.metric(
        "m", "a", streams=("loss",), fields=fields, update=lambda self, stream, scored: seen.append(scored)
    )
    decoder = kit.Identity()
    score(kit, spec, decoder=decoder)
    named = {name for scored in seen for name in ("codes", "x_hat", "losses") if getattr(scored, name) is not None}
    assert named == given
    if fields in ((), ("codes",)):
        assert decoder.decoded == 0


def test_rows_of_codes_are_selected_across_batches():
    z = torch.tensor([[0.0, 1, 2], [0, 0, 0], [3, 0, 0], [4, 5, 6]])
    side = {"mean": torch.arange(4.0)}
    first, second = (SparseCodes.from_dense(part) for part in z.split(2))
    pieces = [
        SparseCodes(c.values, c.latents, c.offsets, 3, {"mean": s})
        for c, s in zip((first, second), side["mean"].split(2), strict=True)
    ]
    rows = torch.tensor([3, 1, 0, 3])
    picked = SparseCodes.concatenate(pieces).select(rows)
    assert torch.equal(picked.to_dense(), z[rows])
    assert picked.side["mean"].tolist() == [3, 1, 0, 3]


def test_metrics_without_streams_come_last_and_once(kit):
    seen = []

    def compute(self, provided):
        seen.append(self.context.scoring.encoded_tokens)
        return MetricResult({"speed": MetricValue.of(provided[0], 5.0, 1)})

    cost = kit.metric("cost", "speed", streams=(), fields=(), compute=compute, measured=True)
    sources = [(kit.docs, 0, kit.Source()), (kit.docs, 1, kit.Source())]
    outcome = score(kit, cost, kit.metric("m", "a"), sources=sources)
    assert seen == [186 + 100]
    assert "speed" not in outcome.metrics
    assert outcome.measured_metrics["speed"]["on"] is None
    assert outcome.measured_metrics["speed"]["parts"] == [
        {"dataset": None, "seed": None, "slice": None, "value": 5.0, "stderr": None, "n": 1, "reason": None}
    ]


def test_details_are_of_the_first_pass_with_tokens_as_text(kit):
    def compute(self, provided):
        contexts = [{"latent": 1, "contexts": [{"token_ids": [3, 4], "peak": 2.0}]}]
        details = {
            "strongest-contexts": contexts,
            "n": self.n,
            "bad": float("nan"),
            "half": "\ud800",
            "thresholds": {"a": 0.1},
        }
        return MetricResult({"a": MetricValue.of(provided[0], 1.0, 1)}, details, {"weights": torch.ones(kit.d)})

    sources = [(kit.docs, 0, kit.Source(n_eval=80)), (kit.near, 0, kit.Source(n_eval=10))]
    outcome = score(kit, kit.metric("m", "a", compute=compute), sources=sources)
    assert outcome.details["strongest-contexts"] == [
        {"latent": 1, "contexts": [{"peak": 2.0, "text_tokens": ["<3>", "<4>"]}]}
    ]
    assert outcome.details["n"] == 80
    assert "not written: ValueError" in outcome.details["bad"]["error"]
    assert "half a character" in outcome.details["half"]["error"]
    assert outcome.evaluation["thresholds"] == {"a": 0.1}
    assert set(outcome.arrays) == {"weights", "density"}


def test_density_is_kept_whatever_the_metrics(kit):
    class Third(kit.Identity):
        def encode(self, x):
            z = torch.zeros_like(x)
            z[(x[:, :1] == thirds).any(1), 2] = 1.0
            return z

    thirds = torch.cat([part[::3, 0] for part in kit.Source().x[:128].split(64)])
    outcome = score(kit, kit.metric("m", "a"), sae=Third(), sources=[(kit.docs, 0, kit.Source(n_density=128))])
    assert outcome.arrays["density"].tolist() == [0, 0, 44 / 128, 0, 0, 0]
    assert (
        "density"
        not in score(kit, kit.metric("m", "a"), sources=[(kit.docs, 0, kit.Source(absent=("density",)))]).arrays
    )


def test_scoring_twice_is_equal(kit):
    a, b = (score(kit, fvu_spec(kit), kit.metric("m", "a")) for _ in range(2))
    assert (a.metrics, a.details, a.spent) == (b.metrics, b.details, b.spent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encode": lambda x: x[:, :3]},
            r"encode must return SparseCodes or a float tensor \[64, 6\], got .* \[64, 3\]",
        ),
        ({"encode": lambda x: 1 / 0}, "encode raised ZeroDivisionError"),
        ({"decode": lambda codes: codes.to_dense()[:, :2]}, r"decode must return \[64, 6\], got \[64, 2\]"),
        ({"decode": lambda codes: None}, r"decode must return \[64, 6\], got NoneType"),
    ],
)
def test_an_sae_that_breaks_its_contract_is_named(kit, change, message):
    sae = kit.Identity()
    for name, function in change.items():
        object.__setattr__(sae, name, function)
    with pytest.raises(PluginError, match=rf"any default s0 \(any\): {message}"):
        score(kit, kit.metric("m", "a", fields=("reconstruction",)), sae=sae)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("decode", lambda codes: codes.to_dense() / 0),
        ("encode", lambda x: x * float("inf")),
    ],
)
def test_an_sae_that_gives_values_that_are_not_finite_has_diverged(kit, name, function):
    sae = kit.Identity()
    object.__setattr__(sae, name, function)
    with pytest.raises(Diverged, match=r"any default s0 \(any\): .*values that are not finite.*lower train\.lr"):
        score(kit, kit.metric("m", "a", fields=("reconstruction",)), sae=sae)


def scaled(kit, factor):
    sae = kit.Identity()
    object.__setattr__(sae, "decode", lambda codes: codes.to_dense() * factor)
    return sae


def test_an_fvu_over_ten_has_diverged_and_the_value_is_in_the_reason(kit):
    reference = FvuAccumulator(kit.d)
    for batch in kit.Source().stream("eval", 64):
        reference.update(batch.x, 9 * batch.x)
    fvu = reference.compute().value
    assert fvu > 10
    with pytest.raises(Diverged, match=rf"the FVU on held-out data is {fvu:.4g}, over 10"):
        score(kit, fvu_spec(kit), sae=scaled(kit, 9))


def test_under_ten_is_a_bad_score_and_no_divergence(kit):
    assert 1 < score(kit, fvu_spec(kit), sae=scaled(kit, 2.5)).metrics["fvu"]["value"] < 10


def test_a_control_may_be_as_far_off_as_it_is(kit):
    spec = fvu_spec(kit)
    sources = [(kit.docs, 0, kit.Source())]
    cell = kit.cell(spec, control=True)
    outcome = score_cell(cell, scaled(kit, 9), sources, kit.catalog, kit.training, decoder=scaled(kit, 9))
    assert outcome.metrics["fvu"]["value"] > 10


def test_no_gradient_is_recorded(kit):
    def update(self, stream, scored):
        assert not scored.x_hat.requires_grad

    class Trainable(kit.Identity):
        def encode(self, x):
            return x @ self.W_dec

    assert (
        score(kit, kit.metric("m", "a", fields=("reconstruction",), update=update), sae=Trainable()).metrics["a"][
            "value"
        ]
        == 100.0
    )


def test_batch_size_is_bounded_by_pre_activations():
    assert batch_size(512) == 4096
    assert batch_size(65_536) == 1024
    assert batch_size(10**9) == 256
