from __future__ import annotations

import itertools
import math

import pytest
import torch

from saebench.api import Cost, NonNegative, SparseCodes
from saebench.artifacts import read_meta
from saebench.nn.kernels import backends
from saebench.train import Watch, read_outcome, rms_scale, save_outcome


def test_two_runs_are_equal_bit_for_bit(kit):
    a, b = kit.train(), kit.train()
    assert a.ok
    assert kit.equal(a, b)
    assert a.to_json() == b.to_json()
    other = kit.train(kit.cell(init_seed=1))
    assert not kit.equal(a, other)


def test_it_learns_and_stops_on_its_share(kit):
    outcome = kit.train(kit.cell(tokens=64 * 60))
    assert outcome.trajectory[-1]["fvu"] < 0.5 * outcome.trajectory[0]["fvu"]
    assert outcome.steps == 60
    assert outcome.tokens == 64 * 60
    assert outcome.epochs == pytest.approx(6.0)
    assert outcome.forward == {"tokens": 64 * 60, "flops": 7 * 64 * 60}


def test_over_spend_is_less_than_a_batch_and_recorded(kit):
    outcome = kit.train(kit.cell(tokens=650))
    assert outcome.tokens == 704
    assert outcome.steps == 11
    assert outcome.spent["tokens"] == 704
    assert outcome.training()["over_spent"] == 54
    assert kit.train().over_spent == 0


def test_flops_count_the_batch_s_own_l0(kit):
    codes = []

    class Counting(kit.Tiny):
        def training_loss(self, batch, step):
            terms = super().training_loss(batch, step)
            codes.append(int((terms.codes.values != 0).sum()))
            return terms

    kit.add("counting", Counting)
    outcome = kit.train(kit.cell("counting"))
    assert outcome.flops == 640 * 6 * 256 + sum(codes) * 10 + 10 * 1000 + sum(outcome.hooks["flops"].values())


def test_trajectory_has_twelve_log_spaced_points(kit):
    outcome = kit.train(kit.cell(tokens=64 * 100))
    tokens = [point["tokens"] for point in outcome.trajectory]
    assert len(tokens) == 12
    assert tokens[0] == 64
    assert tokens[-1] == 6400
    ratios = [b / a for a, b in itertools.pairwise(tokens[4:])]
    assert max(ratios) / min(ratios) < 1.3
    assert all(
        math.isfinite(point["fvu"]) and 0 < point["l0"] <= 2 and point["flops"] > 0 for point in outcome.trajectory
    )


def test_progress_is_told_at_most_twenty_times_and_changes_nothing(kit):
    calls = []

    class Listening(Watch):
        wants_progress = True

        def progress(self, *told):
            calls.append(told)

    cell = kit.cell(tokens=64 * 100)
    outcome = kit.train(cell, progress=Listening())
    assert len(calls) == 20
    assert calls[-1][:3] == (cell, 6400, 6400)
    assert kit.equal(outcome, kit.train(cell))


def test_inputs_are_scaled_to_unit_rms(kit):
    source = kit.source(scale=50.0)
    outcome = kit.train(source=source)
    assert outcome.input_scale == pytest.approx(float(source.x.double().square().mean().sqrt()))
    name, n, mean_square = outcome.module.seen[0]
    assert (name, n) == ("init", 640)
    assert mean_square == pytest.approx(kit.d_in, rel=1e-5)
    plain = kit.train(kit.cell(train=kit.replace(kit.settings, normalise="none")), source)
    assert plain.input_scale == 1.0
    assert rms_scale(torch.zeros(3, 2)) == 1.0


def test_steps_say_where_training_stands(kit):
    outcome = kit.train()
    steps = outcome.module.seen[1:]
    assert [step.index for step in steps] == list(range(10))
    assert steps[3].tokens_seen == 192
    assert steps[3].progress == pytest.approx(0.3)
    assert steps[3].tokens_allotted == 640


def test_unit_rows_hold_and_gradients_stay_tangent(kit):
    norms = []

    class Watching(kit.Tiny):
        def training_loss(self, batch, step):
            norms.append(self.W_dec.detach().norm(dim=1))
            return super().training_loss(batch, step)

        def after_step(self, context):
            with torch.no_grad():
                self.W_dec[0] *= 5  # re-aimed rows obey the constraint too

    kit.add("watching", Watching)
    outcome = kit.train(kit.cell("watching"))
    torch.testing.assert_close(torch.stack(norms), torch.ones(10, kit.d_sae), atol=1e-6, rtol=0)
    torch.testing.assert_close(outcome.module.W_dec.norm(dim=1), torch.ones(kit.d_sae), atol=1e-6, rtol=0)


def test_non_negative_clamps_to_its_floor(kit):
    class Floored(kit.Tiny):
        def constraints(self):
            return {"b_dec": NonNegative(0.25)}

    kit.add("floored", Floored)
    assert float(kit.train(kit.cell("floored")).module.b_dec.min()) >= 0.25


def test_an_fvu_over_ten_at_the_end_has_diverged(kit):
    class Astray(kit.Tiny):
        def decode(self, codes):
            return super().decode(codes) * 30

    kit.add("tiny", Astray)
    outcome = kit.train()
    fvu = outcome.trajectory[-1]["fvu"]
    assert fvu > 10
    assert outcome.status == "diverged"
    assert f"the FVU of the last training batch is {fvu:.4g}, over 10" in outcome.error["message"]
    assert outcome.module is None


def test_weights_that_stop_being_finite_diverge(kit):
    class Broken(kit.Tiny):
        def finalize(self, batches):
            self.b_dec.data[0] = float("inf")

    kit.add("broken", Broken)
    outcome = kit.train(kit.cell("broken"))
    assert outcome.status == "diverged"
    assert "'b_dec' [8]" in outcome.error["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reconstruction": torch.zeros(())}, r"LossTerms.reconstruction must be \[64\]"),
        ({"x_hat": torch.zeros(2, 2)}, r"LossTerms.x_hat must be \[64, 8\]"),
        ({"penalties": {"l1": torch.zeros(3)}}, "penalty 'l1' must be a scalar tensor"),
    ],
)
def test_a_broken_contract_names_the_cell_and_what_came(kit, change, message):
    class Wrong(kit.Tiny):
        def training_loss(self, batch, step):
            return kit.replace(super().training_loss(batch, step), **change)

    kit.add("wrong", Wrong)
    outcome = kit.train(kit.cell("wrong"))
    assert outcome.status == "failed"
    assert outcome.error["type"] == "PluginError"
    with pytest.raises(ValueError, match=message):
        raise ValueError(outcome.error["message"])


def test_token_weights_replace_the_mean(kit):
    class Worst(kit.Tiny):
        def token_weights(self, losses, step):
            assert not losses.requires_grad
            weights = torch.zeros_like(losses)
            weights[losses.argmax()] = 1.0
            return weights

    class Uniform(kit.Tiny):
        def token_weights(self, losses, step):
            return torch.full_like(losses, 1 / losses.numel())

    class Unnormalised(kit.Tiny):
        def token_weights(self, losses, step):
            return torch.ones_like(losses)

    for module in (Worst, Uniform, Unnormalised):
        kit.add(module.__name__.lower(), module)
    plain, worst, uniform = kit.train(), kit.train(kit.cell("worst")), kit.train(kit.cell("uniform"))
    assert worst.facts["effective_sample_size"]["mean"] == 1.0
    assert uniform.facts["effective_sample_size"]["mean"] == pytest.approx(64)
    assert not torch.allclose(plain.module.W_enc, worst.module.W_enc, atol=1e-3)
    torch.testing.assert_close(plain.module.W_enc, uniform.module.W_enc, atol=1e-3, rtol=0)
    assert "must sum to 1, got 64" in kit.train(kit.cell("unnormalised")).error["message"]


def test_facts_of_the_steps_are_summarised(kit):
    assert kit.train().facts["step"] == {"mean": 4.5, "min": 0.0, "max": 9.0, "last": 9.0, "n": 10}


def test_dead_fraction_is_of_the_last_fifth(kit):
    class HalfSilent(kit.Tiny):
        def encode(self, x):
            values, latents = torch.topk(((x - self.b_dec) @ self.W_enc.T).abs(), self.config.k)
            return SparseCodes.from_topk(values + 1, latents % 4, self.d_sae)

    kit.add("halfsilent", HalfSilent)
    assert kit.train(kit.cell("halfsilent", config=kit.config(k=1))).dead_fraction == 12 / 16


def test_finalize_reads_training_batches_and_is_charged(kit):
    class Finalizing(kit.Tiny):
        def finalize(self, batches):
            batches = list(batches)
            self.seen.append([tuple(batch.shape) for batch in batches])
            assert not torch.is_grad_enabled()

    kit.add("finalizing", Finalizing)
    outcome, plain = kit.train(kit.cell("finalizing")), kit.train()
    assert outcome.module.seen[-1] == [(64, kit.d_in)] * 10
    assert outcome.tokens == plain.tokens
    assert outcome.flops - plain.flops >= 640 * 256


def test_a_control_is_fitted_once_through_without_a_budget(kit):
    class Fitted(kit.Tiny):
        def fit(self, batches, generator):
            self.seen.append(sum(batch.shape[0] for batch in batches))

    kit.add("fitted", Fitted)
    outcome = kit.train(kit.cell("fitted", control=True, tokens=0), kit.source(n=4096))
    assert outcome.ok
    assert outcome.module.seen[-1] == 4096
    assert outcome.training() == {
        "steps": 0,
        "over_spent": 0,
        "trajectory": [],
        "dead_fraction": None,
        "facts": {},
        "numerics": None,
    }
    only_built = kit.train(kit.cell(control=True, tokens=0), memory_share_bytes=1)
    assert only_built.ok
    assert only_built.training() is None
    assert only_built.spent == {"tokens": 0, "flops": 0}
    assert only_built.module.seen[0][0] == "init"


def test_only_a_control_may_have_fewer_latents_than_planned(kit, tmp_path):
    outcome = kit.train(kit.cell(d_sae=20))
    assert "the module's d_sae is 16, the plan says 20" in outcome.error["message"]
    control = kit.cell(d_sae=20, control=True, tokens=0)
    outcome = kit.train(control)
    save_outcome(outcome, control, tmp_path / "c")
    assert read_meta(tmp_path / "c")["d_sae"] == 16


def test_what_a_checkpoint_keeps_of_training_comes_back(kit, tmp_path):
    outcome, cell = kit.train(), kit.cell()
    save_outcome(outcome, cell, tmp_path / "c")
    back = read_outcome(tmp_path / "c")
    assert back.to_json() == outcome.to_json()
    assert back.measured() == outcome.measured()
    assert back.training_facts() == outcome.training_facts()
    assert back.module is None
    with pytest.raises(ValueError, match="no weights to save"):
        save_outcome(back, cell, tmp_path / "d")


def test_a_cell_over_its_memory_share_is_refused_before_it_starts(kit):
    source = kit.source()
    outcome = kit.train(source=source, memory_share_bytes=1000)
    assert outcome.status == "over_budget"
    # 264 values with gradient and two moments, 64 tokens of 64 bytes
    assert "8,320 bytes" in outcome.error["message"]
    assert "1,000 bytes" in outcome.error["message"]
    assert not source.asked
    assert Cost(264, 0, 0, 0, 0, 0, 64).training_memory_bytes(64) == 8320


def test_a_child_inherits_weights_and_scale_and_adds_up_the_cost(kit, tmp_path):
    kit.add("child", kit.Tiny)
    parent_cell = kit.cell()
    child_cell = kit.cell("child", parent=parent_cell.cell_id, dataset=kit.replace(parent_cell.dataset, name="near"))
    missing = kit.train(child_cell, parent_folder=tmp_path / "p")
    assert missing.status == "skipped"
    assert "has no checkpoint" in missing.error["message"]
    parent = kit.train(parent_cell, kit.source(scale=2.0))
    save_outcome(parent, parent_cell, tmp_path / "p")
    child = kit.train(child_cell, kit.source(scale=9.0), parent_folder=tmp_path / "p")
    assert child.ok
    assert child.input_scale == parent.input_scale
    assert child.module.seen[0].index == 0  # no init from data over the parent's weights
    forwards = parent.forward_flops + child.forward_flops
    assert child.all_in == {"tokens": 1280, "flops": parent.flops + child.flops + forwards}
    assert child.all_in_s == pytest.approx(parent.all_in_s + child.device_s + child.waited_s)


def test_a_dataset_is_made_once_for_a_child_and_its_parent(kit, tmp_path):
    kit.add("child", kit.Tiny)
    parent_cell = kit.cell()
    source = kit.source()
    source.data_cost, source.data_s, source.forward_s = {"tokens": 500, "flops": 9_000}, 4.0, 2.0
    parent = kit.train(parent_cell, source)
    assert (parent.data, parent.data_s) == ({"tokens": 500, "flops": 9_000}, 4.0)
    assert parent.all_in == {"tokens": 1140, "flops": parent.flops + parent.forward_flops + 9_000}
    assert parent.waited_s > 2.0  # what the store took to fill is told again
    save_outcome(parent, parent_cell, tmp_path / "p")

    def child(more_tokens, recipe):
        data = kit.replace(parent_cell.dataset, recipe=recipe)
        source.data_cost, source.data_s = {"tokens": 500 + more_tokens, "flops": 9_000}, 5.0
        return kit.train(
            kit.cell("child", parent=parent_cell.cell_id, dataset=data), source, parent_folder=tmp_path / "p"
        )

    again = child(0, parent_cell.dataset.recipe)
    assert (again.data, again.data_s) == ({"tokens": 0, "flops": 0}, 1.0)
    assert again.all_in["tokens"] == parent.all_in["tokens"] + 640
    assert child(60, parent_cell.dataset.recipe).data == {"tokens": 60, "flops": 0}
    assert child(60, "another").data == {"tokens": 560, "flops": 9_000}
    stored = tmp_path / "c"
    save_outcome(again, kit.cell("child", parent=parent_cell.cell_id), stored)
    assert read_outcome(stored).all_in == again.all_in
    assert read_outcome(stored).paid == {parent_cell.dataset.recipe: {"tokens": 500, "flops": 9_000}}
    assert (tmp_path / "p" / "sae.json").is_file()


def test_data_that_end_are_an_error_of_the_cell(kit):
    source = kit.source()
    source.batches = lambda batch, seed, start: iter(())
    assert "the data ended after 0 of 640 tokens" in kit.train(source=source).error["message"]


def test_measured_values_are_there(kit):
    measured = kit.train().measured()
    assert measured["device_s"] > 0
    assert measured["peak_memory_bytes"] > (10_000_000 if kit.device == "cpu" else 1_000)
    assert ("process" if kit.device == "cpu" else "on the device") in measured["peak_memory_scope"]
    assert "1 cell began" in measured["peak_memory_scope"]
    assert measured["waited_s"] > 0


def test_seconds_stand_beside_every_point_of_the_trajectory(kit):
    outcome = kit.train(kit.cell(tokens=64 * 100))
    seconds = outcome.measured()["trajectory_s"]
    assert len(seconds) == len(outcome.trajectory) == 12
    assert all(0 < a < b for a, b in itertools.pairwise(seconds))
    assert seconds[-1] <= outcome.device_s


def test_the_record_says_in_which_precision_it_was_trained(kit):
    numerics = kit.train(kit.cell(train=kit.replace(kit.settings, dtype="bfloat16"))).training()["numerics"]
    assert numerics == {
        "backend": backends.current(kit.device),
        "parameters": "float32",
        "moments": "float32",
        "products": numerics["products"],
        "activations": "bfloat16",
        "deterministic": kit.device == "cpu",  # a run asks for deterministic operators, this test does not
    }
    assert ("bfloat16" in numerics["products"]) == (numerics["backend"] == "bf16-screen")


def test_equal_weights_have_one_digest(kit):
    class Constant(kit.Tiny):
        """The seed decides a counter alone."""

        def __init__(self, config, site, generator):
            super().__init__(config, site, torch.Generator().manual_seed(0))
            self.register_buffer("drawn", torch.randint(1000, (), generator=generator))

    kit.add("constant", Constant)
    digests = {
        (name, seed): kit.train(kit.cell(name, init_seed=seed)).weights_digest
        for name in ("tiny", "constant")
        for seed in (0, 1)
    }
    assert digests["constant", 0] == digests["constant", 1] is not None
    assert digests["tiny", 0] != digests["tiny", 1]
