"""Live sources, passes over several hookpoints, stores written beside training: all give the bits of a stored pass."""

from __future__ import annotations

import dataclasses
from itertools import islice, product

import pytest
import torch
from data_toys import Cohort, How, Model, Use, sources

from saebench.activations.store import ActivationStore
from saebench.api import SuiteError
from saebench.lm import loaded
from saebench.lm.facts import describe_model
from saebench.lm.model import LanguageModel

WAYS = [How("live"), How("live", prefetch=1), How(build="parallel"), How(build="parallel", prefetch=2), How(prefetch=1)]


@pytest.fixture(autouse=True)
def small_forwards(monkeypatch):
    """Four windows a forward, so that blocks and forwards end in different places."""
    monkeypatch.setattr(loaded, "FORWARD_TOKENS", 64)


@pytest.fixture
def forwards(monkeypatch):
    """Hookpoints of every forward, in order."""
    seen = []
    activations_at = LanguageModel.activations_at

    def counted(self, ids, hookpoints, **arguments):
        seen.append((len(ids), tuple(hookpoints)))
        return activations_at(self, ids, hookpoints, **arguments)

    monkeypatch.setattr(LanguageModel, "activations_at", counted)
    return seen


@pytest.fixture
def hookpoints(model):
    """Three places of one model, the deepest in the middle."""
    facts = describe_model(model.id)
    return [
        dataclasses.replace(model, hookpoint=facts.hookpoint(name).path)
        for name in ("layers.0", "layers.2.mlp", "layers.1")
    ]


def draw(source, n, batch=70, start=0):
    stream = source.batches(batch, 3, start=start)
    batches = list(islice(stream, n))
    stream.close()
    return batches


def same(a, b):
    fields = ("x", "token_ids", "positions", "sequence_ids")
    return len(a) == len(b) and all(
        torch.equal(getattr(one, field), getattr(two, field)) for one, two in zip(a, b, strict=True) for field in fields
    )


@pytest.mark.parametrize(("dtype", "how"), list(product(["float32", "float16", "bfloat16"], WAYS)))
def test_every_way_gives_the_same_batches(tmp_path, model, dtype, how):
    cohort = Cohort(Use("toy"), model, dtype=dtype)
    store = sources(tmp_path / "a").training(cohort)
    expected = draw(store, 30)  # 2100 rows: three epochs of 900
    source = sources(tmp_path / "b").training(dataclasses.replace(cohort, activations=how))
    assert torch.equal(source.init_sample(400), store.init_sample(400))
    assert source.init_sample(400).shape == (400, 16)
    assert same(draw(source, 30), expected)
    assert same(draw(source, 5, start=17), expected[17:22])
    assert expected[0].x.dtype == torch.float32
    assert (source.n_tokens, source.content, source.data_cost) == (store.n_tokens, store.content, store.data_cost)
    assert (source.document_digests, source.manifest) == (store.document_digests, store.manifest)
    assert (source.token_policy, source.forward_flops_per_token) == (store.token_policy, store.forward_flops_per_token)


def test_a_sample_of_training_rows_is_the_same_whether_there_is_a_store_or_not(tmp_path, model, forwards):
    cohort = Cohort(Use("toy"), model)
    data = sources(tmp_path)
    source = data.training(cohort)
    every = {tuple(row) for row in source.init_sample(900).tolist()}
    stored, made = data.training_sample(cohort, 300), len(forwards)
    assert data.training_sample(cohort, 300).equal(stored)
    assert len(forwards) == made  # the rows are on disk
    assert {tuple(row) for row in stored.tolist()} <= every
    assert len(stored) == 300
    assert len(data.training_sample(cohort, 5000)) == source.n_tokens
    live = sources(tmp_path / "live")
    assert live.training_sample(cohort, 300).equal(stored)
    assert live.training(cohort).n_tokens == source.n_tokens  # nothing of it is in the way


def test_a_live_source_begins_anywhere_and_leaves_no_store(tmp_path, model, forwards):
    live = Cohort(Use("toy"), model, activations=How("live"))
    expected = draw(sources(tmp_path).training(live), 7)
    forwards.clear()
    assert same(draw(sources(tmp_path).training(live), 2, start=5), expected[5:])
    assert len(forwards) < 8  # one block's of the 16 forwards of an epoch
    assert not list((tmp_path / "activations").glob("[!.]*/x-*.bin"))


def test_generated_data_is_sampled_once(tmp_path, model, monkeypatch):
    cohort = Cohort(Use("own", "generated"), model, activations=How("live"))
    expected = draw(sources(tmp_path).training(cohort), 30)
    monkeypatch.setattr(LanguageModel, "sample", lambda *_, **__: pytest.fail("sampled again"))
    again = sources(tmp_path).training(cohort)
    assert same(draw(again, 30), expected)
    assert again.data_cost == {"tokens": 200 * 16, "flops": 7}


@pytest.mark.parametrize("how", [How(), How("live"), How("live", prefetch=1), How(build="parallel")])
def test_several_hookpoints_share_each_forward(tmp_path, hookpoints, forwards, how):
    cohorts = [Cohort(Use("toy"), model, activations=how) for model in hookpoints]
    alone, first = [], []
    for i, cohort in enumerate(cohorts):
        source = sources(tmp_path / str(i)).training(cohort)
        first.append(source.init_sample(100))
        alone.append(draw(source, 12))
    one = len(forwards)
    forwards.clear()
    together = sources(tmp_path / "all").training_pass(cohorts)
    streams = [source.batches(70, 3) for source in together]
    heads = [source.init_sample(100) for source in together]
    read = [[] for _ in streams]
    for _ in range(12):
        for stream, batches in zip(streams, read, strict=True):
            batches.append(next(stream))
    for stream in streams:
        stream.close()
    assert all(same(a, b) for a, b in zip(alone, read, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(heads, first, strict=True))
    assert len(forwards) <= one / 3 + 4
    assert {names for _, names in forwards[: int(one / 3)]} == {tuple(model.hookpoint for model in hookpoints)}
    assert together[0].forward_flops_per_token < together[1].forward_flops_per_token


def test_sources_out_of_step_change_no_bit(tmp_path, hookpoints):
    cohorts = [Cohort(Use("toy"), model, activations=How("live")) for model in hookpoints[:2]]
    alone = [draw(sources(tmp_path / str(i)).training(cohort), 15) for i, cohort in enumerate(cohorts)]
    first, second = sources(tmp_path / "both").training_pass(cohorts)
    assert same(draw(first, 15), alone[0])
    assert same(draw(second, 15), alone[1])
    assert same(draw(first, 15), alone[0])


def test_a_source_that_ended_is_no_longer_computed(tmp_path, hookpoints, forwards):
    shallow, deep = hookpoints[0], hookpoints[1]
    data = sources(tmp_path)
    a, b = data.training_pass([Cohort(Use("toy"), model, activations=How("live")) for model in (shallow, deep)])
    left, right = a.batches(250, 0), b.batches(250, 0)
    next(left), next(right)
    right.close()
    forwards.clear()
    next(left)
    assert {names for _, names in forwards} == {(shallow.hookpoint,)}


def test_nothing_behind_the_deepest_hookpoint_runs(tmp_path, hookpoints):
    data = sources(tmp_path)
    lm = data.context.model(hookpoints[0])
    ran = []
    lm.model.gpt_neox.layers[1].register_forward_hook(lambda *_: ran.append(1))
    lm.model.gpt_neox.layers[2].register_forward_hook(lambda *_: ran.append(2))
    lm.model.get_output_embeddings().register_forward_hook(lambda *_: ran.append(3))
    cohorts = [Cohort(Use("toy"), model, activations=How("live")) for model in (hookpoints[0], hookpoints[2])]
    for source in data.training_pass(cohorts):
        draw(source, 3)
    assert set(ran) == {1}


def test_the_first_block_is_made_once_for_sample_and_training(tmp_path, model, forwards):
    source = sources(tmp_path).training(Cohort(Use("toy"), model, activations=How("live")))
    source.init_sample(200)
    made = len(forwards)
    draw(source, 3, batch=80)
    assert len(forwards) == made


def test_building_beside_the_first_epoch(tmp_path, model, forwards):
    ahead = Cohort(Use("toy"), model)
    expected = sources(tmp_path / "a").training(ahead).rows.store
    forwards.clear()
    cohort = dataclasses.replace(ahead, activations=How(build="parallel"))
    data = sources(tmp_path / "b")
    source = data.training(cohort)
    stream = source.batches(100, 0)
    list(islice(stream, 7))
    assert not list((tmp_path / "b" / "activations").glob("[!.]*/x-*.bin"))  # under another name until it is whole
    assert list((tmp_path / "b" / "activations").glob(".*/x-*.bin"))
    list(islice(stream, 2))
    (folder,) = {path.parent for path in (tmp_path / "b" / "activations").glob("[!.]*/x-*.bin")}
    assert not list((tmp_path / "b" / "activations").glob(".*"))
    made = len(forwards)
    list(islice(stream, 20))
    assert len(forwards) == made  # the other epochs come from the store
    stream.close()
    built = ActivationStore.open(folder, data._training._key(cohort))
    assert (built.vectors, built.documents) == (expected.vectors, expected.documents)
    seconds = {"data_s", "forward_s"}  # measured: they differ from run to run
    facts, expected_facts = ({k: store.facts[k] for k in store.facts.keys() - seconds} for store in (built, expected))
    assert facts == expected_facts
    assert built.facts["forward_s"] > 0
    assert sources(tmp_path / "b").training(ahead).content == source.content
    assert len(forwards) == made


def test_an_unfinished_store_is_discarded_and_begun_again(tmp_path, model):
    cohort = Cohort(Use("toy"), model, activations=How(build="parallel"))
    data = sources(tmp_path / "b")
    source = data.training(cohort)
    draw(source, 2)
    data.release()
    assert not list((tmp_path / "b" / "activations").glob("**/x-*.bin"))
    # a resumed run begins in the middle: what it skips is made once, for the store must be whole
    expected = draw(sources(tmp_path / "a").training(dataclasses.replace(cohort, activations=How())), 20)
    again = sources(tmp_path / "b").training(cohort)
    assert same(draw(again, 11, start=9), expected[9:])
    assert len(list((tmp_path / "b" / "activations").glob("[!.]*/x-*.bin"))) == 1


def test_a_second_reader_disturbs_neither_the_first_nor_the_store(tmp_path, model, forwards):
    cohort = Cohort(Use("toy"), model)
    expected = draw(sources(tmp_path / "a").training(cohort), 13)
    forwards.clear()
    source = sources(tmp_path / "b").training(dataclasses.replace(cohort, activations=How(build="parallel")))
    stream = source.batches(70, 3)
    first = list(islice(stream, 5))
    assert same(draw(source, 2), expected[:2])  # as `finalize` reads while other cells train
    assert same(first + list(islice(stream, 8)), expected)
    assert len(list((tmp_path / "b" / "activations").glob("[!.]*/x-*.bin"))) == 1
    assert len(forwards) <= 16 + 3 + 6  # an epoch, groups met twice at the ends of blocks, one block again
    stream.close()


def test_a_pass_ends_the_one_before(tmp_path, model):
    data = sources(tmp_path)
    cohort = Cohort(Use("toy"), model, activations=How(build="parallel"))
    data.training(cohort).init_sample(10)
    assert list((tmp_path / "activations").glob(".*/x-*.bin"))
    data.training(dataclasses.replace(cohort, activations=How("live")))
    assert not list((tmp_path / "activations").glob("**/x-*.bin"))


def test_release_discards_what_is_unfinished(tmp_path, model):
    data = sources(tmp_path)
    data.training(Cohort(Use("toy"), model, activations=How(build="parallel"))).init_sample(10)
    assert list((tmp_path / "activations").glob(".*/x-*.bin"))
    data.release()
    assert not list((tmp_path / "activations").glob("**/x-*.bin"))


@pytest.mark.parametrize("how", [How(), How("live"), How(build="parallel", prefetch=1)])
def test_values_too_large_for_half_precision_are_refused(tmp_path, model, monkeypatch, how):
    activations_at = LanguageModel.activations_at
    monkeypatch.setattr(
        LanguageModel,
        "activations_at",
        lambda self, ids, names, **more: {k: 1e6 * x for k, x in activations_at(self, ids, names, **more).items()},
    )
    cohort = Cohort(Use("toy"), model, activations=how)
    with pytest.raises(SuiteError, match=r"does not fit into float16 \(65,504 at most\).*bfloat16"):
        draw(sources(tmp_path).training(dataclasses.replace(cohort, dtype="float16")), 1)
    assert not list((tmp_path / "activations").glob("**/x-*.bin"))
    draw(sources(tmp_path).training(dataclasses.replace(cohort, dtype="bfloat16")), 1)


def test_a_pass_takes_one_stream_of_tokens_alone(tmp_path, model):
    a = Cohort(Use("toy"), model)
    for other in (dataclasses.replace(a, data_seed=1), dataclasses.replace(a, dtype="float16")):
        with pytest.raises(ValueError, match="cohorts of one pass share"):
            sources(tmp_path).training_pass([a, other])


def test_cohorts_with_the_same_rows_get_one_source(tmp_path, model):
    for how in (How(), How("live")):
        a, b = sources(tmp_path).training_pass([Cohort(Use("toy"), model, activations=how)] * 2)
        assert a is b


def test_cohorts_of_other_lengths_are_streams_of_their_own(tmp_path, hookpoints):
    cohorts = [Cohort(Use("toy"), model, tokens=n) for model, n in zip(hookpoints, (300, 500, 300), strict=True)]
    data = sources(tmp_path)
    assert [source.n_tokens for source in data.training_pass(cohorts)] == [300, 500, 300]
    live = [dataclasses.replace(cohort, activations=How("live")) for cohort in cohorts]
    for source, cohort in zip(data.training_pass(live), cohorts, strict=True):
        assert same(draw(source, 10), draw(data.training(cohort), 10))


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 1e-5), ("bfloat16", 1e-3)])
def test_storage_precision_hardly_moves_fvu(tmp_path, dtype, bound):
    """The built-in model: the best rank-8 code of rounded rows against that of exact ones, on exact rows."""
    facts = describe_model("docs-lm")
    data = sources(tmp_path)
    model = Model("docs-lm", facts.digest, facts.hookpoint("layers.2").path, context=32)
    cohort = Cohort(Use("toy"), model, tokens=2000)
    exact, stored = (
        data.training(dataclasses.replace(cohort, dtype=name)).init_sample(2000).double() for name in ("float32", dtype)
    )
    assert not torch.equal(exact, stored)

    def fvu(rows):
        mean = rows.mean(0)
        basis = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:8]
        centred = exact - mean
        error = (centred - centred @ basis.T @ basis).square().sum()
        return float(error / (exact - exact.mean(0)).square().sum())

    assert 0.01 < fvu(exact) < 0.99
    assert abs(fvu(stored) - fvu(exact)) <= bound * fvu(exact)
    noise = (stored - exact).square().sum() / (exact - exact.mean(0)).square().sum()
    assert float(noise) <= bound


@pytest.mark.gpu
@pytest.mark.parametrize("how", [*WAYS, How()])
def test_every_way_gives_the_same_batches_on_an_accelerator(tmp_path, model, how):
    cohort = Cohort(Use("toy"), model, dtype="bfloat16")
    expected = draw(sources(tmp_path / "a", device="cuda").training(cohort), 20)
    assert expected[0].x.is_cuda and expected[0].token_ids.is_cuda
    source = sources(tmp_path / "b", device="cuda").training(dataclasses.replace(cohort, activations=how))
    assert same(draw(source, 20), expected)
    assert same(draw(source, 3, start=9), expected[9:12])
