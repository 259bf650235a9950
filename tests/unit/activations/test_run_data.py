"""Training and evaluation sources on a tiny model with toy datasets."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from data_toys import Cohort, Evaluation, How, ToyVectors, Use, sources

from saebench.activations import precision
from saebench.activations.sources.context import Meter
from saebench.activations.sources.held_out.loss_windows import LossSet
from saebench.activations.tokens import sequence_digest, shuffled
from saebench.api import PluginError, StreamSpec, SuiteError
from saebench.api.metrics import STREAMS
from saebench.base.random import generator
from saebench.lm.model import LanguageModel
from saebench.metrics.reconstruction import ReconstructionSums


def test_training_activations_are_those_of_the_model(tmp_path, model):
    source = sources(tmp_path).training(Cohort(Use("toy"), model))
    assert (source.n_tokens, source.d_in) == (900, 16)
    batch = next(source.batches(64, seed=3))
    lm = LanguageModel.load(model.id)
    assert not bool(lm.special_mask(batch.token_ids).any())
    store = source.rows.store
    whole = store.slice(0, 900)
    # the windows again, from the stored ids: packed windows hold a BOS between documents, so put ids back by position
    ids = torch.full((int(whole.sequence_ids.max()) + 1, 16), lm.bos_id)
    ids[whole.sequence_ids, whole.positions] = whole.token_ids
    again = lm.activations(ids, model.hookpoint)[whole.sequence_ids, whole.positions]
    kept = whole.sequence_ids < whole.sequence_ids.max()  # the last window was cut
    assert torch.allclose(again[kept], whole.x[kept], atol=1e-5)
    assert source.forward_flops_per_token == lm.facts.forward_flops_per_token(model.hookpoint)
    assert source.token_policy["context"] == 16
    assert source.data_cost == {"tokens": 0, "flops": 0}


def test_every_epoch_is_a_permutation_and_batches_are_always_full(tmp_path, model):
    source = sources(tmp_path).training(Cohort(Use("toy"), model, tokens=100))
    batches = list(islice(source.batches(32, seed=1), 25))  # 800 rows: 8 epochs
    assert {batch.n_tokens for batch in batches} == {32}
    rows = [tuple(row.tolist()) for batch in batches for row in batch.x]
    one_epoch = Counter(rows[:100])
    for epoch in range(8):
        assert Counter(rows[100 * epoch : 100 * epoch + 100]) == one_epoch
    assert rows[:100] != rows[100:200]
    again = list(islice(source.batches(32, seed=1), 25))
    assert all(torch.equal(a.x, b.x) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(next(source.batches(32, seed=2)).x, batches[0].x)
    assert source.init_sample(40).shape == (40, 16)
    assert source.init_sample(1000).shape == (100, 16)
    assert torch.equal(source.init_sample(40), source.init_sample(40))


def test_a_batch_may_be_larger_than_the_corpus(tmp_path, model):
    source = sources(tmp_path).training(Cohort(Use("toy"), model, tokens=20))
    assert next(source.batches(50, seed=0)).n_tokens == 50


def test_stores_are_reused_and_the_data_seed_decides(tmp_path, model, monkeypatch):
    first = sources(tmp_path).training(Cohort(Use("toy"), model))
    other = sources(tmp_path).training(Cohort(Use("toy"), model, data_seed=1))
    assert first.content != other.content
    monkeypatch.setattr(LanguageModel, "run", lambda *_, **__: pytest.fail("built again"))
    again = sources(tmp_path).training(Cohort(Use("toy"), model))
    assert (again.content, again.data_cost, again.document_digests) == (
        first.content,
        first.data_cost,
        first.document_digests,
    )
    assert torch.equal(next(again.batches(8, 0)).x, next(first.batches(8, 0)).x)


def test_a_corpus_that_fills_no_window_is_refused(tmp_path, model):
    with pytest.raises(SuiteError, match="its only document does not fall into the train part"):
        sources(tmp_path).training(Cohort(Use("toy", options={"n": 1}), model))
    assert not (tmp_path / "activations").exists() or not list((tmp_path / "activations").iterdir())


def test_a_changed_model_is_refused(tmp_path, model):
    with pytest.raises(SuiteError, match="changed since the plan"):
        sources(tmp_path).training(Cohort(Use("toy"), dataclasses.replace(model, digest="0" * 64)))


def test_evaluation_streams(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    source = data.held_out(Use("toy"), model, Evaluation(), 0, training=training)
    assert source.streams == {"eval", "density", "loss", "random-tokens", "self-sampled"}
    lm = data.context.model(model)
    whole = torch.cat([batch.x for batch in source.stream("eval", 64)])
    assert len(whole) == source.n_tokens == 300
    assert torch.equal(torch.cat([batch.x for batch in source.stream("density", 64)]), whole[:200])
    batch = next(source.stream("eval", 64))
    window = source.shared.store.extra("windows")[int(batch.sequence_ids[40])]
    assert int(window[batch.positions[40]]) == int(batch.token_ids[40])
    assert source.token_texts(batch.token_ids[:2]) == lm.token_texts(batch.token_ids[:2].tolist())
    ids = torch.cat([batch.token_ids for batch in source.stream("random-tokens", 64)])
    assert len(ids) == 200
    assert len(ids.unique()) > 20
    assert not bool(lm.special_mask(ids).any())
    assert sum(batch.n_tokens for batch in source.stream("self-sampled", 64)) == 200
    assert source.content != data.held_out(Use("toy"), model, Evaluation(), 1, training=training).content
    cost = source.cost({"eval", "density"})
    assert cost == {"tokens": 300, "flops": 300 * lm.facts.forward_flops_per_token(model.hookpoint)}
    assert source.cost(source.streams)["tokens"] == 300 + 200 + 2 * 200 + 4 * source.n_loss_tokens
    with pytest.raises(ValueError, match="loss_batches"):
        next(source.stream("loss", 4))


def test_tokens_know_their_documents(tmp_path, model):
    """Against a slow reference: the documents one after the other, each tokenised alone."""
    data = sources(tmp_path)
    source = data.held_out(Use("toy"), model, Evaluation(), 0, training=None)
    lm = data.context.model(model)
    documents = shuffled(data.context.texts(Use("toy"), model, 0, Meter()).documents("held-out"), 0)
    expected = [(number, i) for number, text in enumerate(documents) for i in lm.encode_many([text.text])[0]]
    batches = list(source.stream("eval", 64))
    numbers, ids = (torch.cat([getattr(b, name) for b in batches]).tolist() for name in ("document_ids", "token_ids"))
    assert list(zip(numbers, ids, strict=True)) == expected[: source.n_tokens]
    assert all(torch.equal(batch.clusters, batch.document_ids) for batch in batches)
    place = {
        where: number
        for batch in batches
        for *where, number in zip(
            batch.sequence_ids.tolist(), batch.positions.tolist(), batch.document_ids.tolist(), strict=True
        )
        for where in [tuple(where)]
    }
    for losses in source.loss_batches():
        batch = losses.batch
        where = zip(batch.sequence_ids.tolist(), batch.positions.tolist(), strict=True)
        assert batch.document_ids.tolist() == [place[one] for one in where]
    assert len(set(numbers)) > len(set(torch.cat([batch.sequence_ids for batch in batches]).tolist())) / 2
    # sequences that are sampled are documents of their own
    for name in ("random-tokens", "self-sampled"):
        sampled = next(source.stream(name, 64))
        assert sampled.document_ids is None
        assert sampled.clusters is sampled.sequence_ids


def test_a_store_of_before_documents_is_made_anew(tmp_path, model, monkeypatch):
    from saebench.activations import store as store_module

    version = store_module.STORE_VERSION
    monkeypatch.setattr(store_module, "STORE_VERSION", version - 1)
    old = sources(tmp_path).held_out(Use("toy"), model, Evaluation(), 0, training=None).shared.store
    monkeypatch.setattr(store_module, "STORE_VERSION", version)
    new = sources(tmp_path).held_out(Use("toy"), model, Evaluation(), 0, training=None).shared.store
    assert new.folder == old.folder
    assert json.loads((new.folder / "manifest.json").read_text())["version"] == version


def test_the_mean_in_losses_is_the_one_that_fvu_measures_from(tmp_path, model):
    """Though the density stream is longer: putting the mean in place of every activation has an FVU of 1."""
    data = sources(tmp_path)
    settings = dataclasses.replace(Evaluation(), tokens=100, density_tokens=300)
    source = data.held_out(Use("toy"), model, settings, 0, training=None)
    mean = source.shared.losses().mean
    fvu = ReconstructionSums()
    for batch in source.stream("eval", 64):
        fvu.add(batch.x, mean.expand_as(batch.x))
    assert source.n_tokens < source.n_density_tokens
    assert fvu.fvu().value == pytest.approx(1, abs=1e-9)


def test_losses_of_perfect_zero_and_mean_reconstructions(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    source = data.held_out(Use("toy"), model, Evaluation(), 0, training=training)
    held_out = torch.cat([batch.x for batch in source.stream("eval", 64)]).double().mean(0).float()
    total = 0
    for batch in source.loss_batches():
        total += batch.batch.n_tokens
        assert torch.equal(batch.x[batch.rows], batch.batch.x)
        perfect, zero = batch.splice(batch.x), batch.splice(torch.zeros_like(batch.x))
        mean = batch.splice(held_out.expand_as(batch.x))
        assert torch.equal(perfect.ce_spliced, perfect.ce_clean)
        assert float(perfect.kl_spliced.abs().max()) == 0
        assert torch.equal(zero.ce_spliced, zero.ce_zero)
        assert torch.equal(zero.kl_spliced, zero.kl_zero)
        assert torch.allclose(mean.ce_spliced, mean.ce_mean, atol=1e-4)
        assert bool((zero.kl_zero > -1e-6).all())
    assert total == source.n_loss_tokens == 150


def test_losses_do_not_depend_on_what_is_kept_in_memory(tmp_path, model, monkeypatch):
    import saebench.activations.sources.held_out.loss_windows as losses_module

    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    splicer = data.context.model(model).splicer(model.hookpoint)
    windows = data.held_out(Use("toy"), model, Evaluation(), 0, training=training).shared.store.extra("windows").long()
    monkeypatch.setattr(LanguageModel, "rows_per_forward", lambda *_args, **_more: 3)

    def run():
        losses = LossSet(splicer, windows, 100, training.init_sample(64).mean(0))
        list(losses.batches())
        return [batch.splice(0.5 * batch.x) for batch in losses.batches()]

    plenty = run()
    monkeypatch.setattr(losses_module, "LOG_PROB_BYTES", 0)
    slim = run()
    monkeypatch.setattr(losses_module, "CLEAN_BYTES", 0)
    nothing = run()
    for other in (slim, nothing):
        for a, b in zip(plenty, other, strict=True):
            for field in dataclasses.fields(a):
                assert torch.allclose(getattr(a, field.name), getattr(b, field.name), atol=1e-6)


def test_every_store_is_kept_under_the_version_of_how_data_is_made(tmp_path, model, monkeypatch):
    for module in ("context", "held_out.token_data"):
        monkeypatch.setattr(f"saebench.activations.sources.{module}.DATA_VERSION", 17)
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    source = data.held_out(Use("toy"), model, Evaluation(), 0, training=training)
    for name in ("random-tokens", "self-sampled"):
        next(source.stream(name, 64))
    manifests = list((tmp_path / "activations").glob("*/manifest.json"))
    assert len(manifests) == 5  # tokens, their activations, held-out text, two streams of the model
    assert {json.loads(path.read_text())["key"]["data_version"] for path in manifests} == {17}


def test_held_out_documents_are_never_training_documents(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    fine = data.held_out(Use("toy"), model, Evaluation(), 0, training=training)
    assert not fine.shared.documents & training.document_digests
    samples = Use("samples", "generated")
    training = data.training(Cohort(samples, model))
    with pytest.raises(SuiteError, match="are also in the training documents of 'samples'"):
        data.held_out(Use("leaky", "generated", options={"leak": True}), model, Evaluation(), 0, training=training)


def test_near_duplicates_of_training_documents_are_counted_once_and_said(tmp_path, model):
    said = []
    toy, reworded = Use("toy"), Use("reworded", options={"ending": " indeed"})
    data = sources(tmp_path, toy, reworded, say=said.append)
    training = data.training(Cohort(toy, model))
    assert data.held_out(toy, model, Evaluation(), 0, training=training).overlap()["near_duplicates"] == 0
    assert not said
    source = data.held_out(reworded, model, Evaluation(), 0, training=training)
    found = source.overlap()
    # its documents are those of the other dataset and one word: 8 of 9 runs of five words are theirs
    trained = data.context.texts(toy, model, 0, Meter()).documents("train")
    plain = {text.text for text in trained if text.digest in training.document_digests}
    mine = [
        text
        for text in data.context.texts(reworded, model, 0, Meter()).documents("held-out")
        if text.digest in source.shared.documents
    ]
    expected = sum(text.text.removesuffix(" indeed") in plain for text in mine)
    assert 0 < expected < len(mine)
    assert (found["near_duplicates"], found["held_out_documents"]) == (expected, len(mine))
    assert found["train_documents"] == len(training.document_digests)
    assert source.overlap() == found
    (line,) = said
    assert f"{expected} of {len(mine)} held-out documents are near-duplicates of training documents" in line


def test_generated_data_has_no_documents_to_compare(tmp_path, model):
    use = Use("samples", "generated")
    data = sources(tmp_path, use, Use("toy"))
    training = data.training(Cohort(use, model))
    assert data.held_out(Use("toy"), model, Evaluation(), 0, training=training).overlap() is None


def test_self_samples_are_distinct_and_none_is_a_training_sample(tmp_path, model):
    data = sources(tmp_path)
    plain = data.training(Cohort(Use("toy"), model))
    first = data.held_out(Use("toy"), model, Evaluation(), 0, training=plain)
    samples = first.shared.stream_store("self-sampled", plain.document_digests).documents
    assert len(samples) > 5

    taken = sorted(samples)[:3]
    trained = data.training(Cohort(Use("toy"), model))
    trained.document_digests = frozenset(taken)
    second = data.held_out(Use("toy"), model, Evaluation(), 0, training=trained)
    others = second.shared.stream_store("self-sampled", trained.document_digests).documents
    assert not others & set(taken)
    assert sum(batch.n_tokens for batch in second.stream("self-sampled", 64)) == 200


def counting(model, length, generator):
    """One token id after another, without end; short sequences."""
    while True:
        first = int(torch.randint(2, model.vocab_size - length, (1,), generator=generator))
        yield torch.tensor([model.bos_id, *range(first, first + length - 3)])


def test_a_metric_adds_a_stream_of_its_own_sequences(tmp_path, model):
    spec = SimpleNamespace(name="mine", version="1")
    added = {"counting": (StreamSpec("counting", counting), spec)}
    data = sources(tmp_path, streams=added)
    source = data.held_out(Use("toy"), model, Evaluation(), 0, training=None)
    assert source.streams == {*STREAMS, "counting"}
    batches = list(source.stream("counting", 64))
    assert sum(batch.n_tokens for batch in batches) == 200
    ids = torch.cat([batch.token_ids for batch in batches])
    assert bool((ids[:13].diff()[:11] == 1).all())
    near = data.context.model(model).facts.forward_flops_per_token(model.hookpoint)
    alone, both = source.cost({"density"}), source.cost({"density", "counting"})
    assert (both["tokens"] - alone["tokens"], both["flops"] - alone["flops"]) == (200, 200 * near)
    again = sources(tmp_path, streams=added).held_out(Use("toy"), model, Evaluation(), 0, training=None)
    assert torch.equal(torch.cat([batch.token_ids for batch in again.stream("counting", 64)]), ids)
    folders = again.shared.folders
    newer = {"counting": (StreamSpec("counting", counting), SimpleNamespace(name="mine", version="2"))}
    other = sources(tmp_path, streams=newer).held_out(Use("toy"), model, Evaluation(), 0, training=None)
    next(other.stream("counting", 64))
    assert other.shared.folders - folders  # another version is other data


def test_a_stream_that_gives_no_token_ids_is_the_metric_s_fault(tmp_path, model):
    added = {
        "text": (
            StreamSpec("text", lambda *_: iter([torch.tensor([0, 10**6])])),
            SimpleNamespace(name="mine", version="1"),
        )
    }
    source = sources(tmp_path, streams=added).held_out(Use("toy"), model, Evaluation(), 0, training=None)
    with pytest.raises(PluginError, match="metric 'mine': stream 'text' must give token ids"):
        next(source.stream("text", 64))


def test_generated_data_is_masked_metered_and_known_by_sequence(tmp_path, model):
    use = Use("own", "generated")
    data = sources(tmp_path)
    source = data.training(Cohort(use, model, tokens=10_000))
    lm = data.context.model(model)
    ids = lm.sample(200, 16, temperature=1.0, top_p=1.0, generator=generator("toy", "train"))
    assert source.n_tokens == int((~lm.special_mask(ids)).sum())
    assert source.data_cost == {"tokens": 200 * 16, "flops": 7}
    assert sequence_digest(ids[0]) in source.document_digests
    again = sources(tmp_path).training(Cohort(use, model, tokens=10_000))
    assert again.data_cost == source.data_cost
    assert again.data_s == source.data_s > 0
    assert again.forward_s == source.forward_s > 0


def test_an_encoder_says_why_streams_are_absent(tmp_path, encoder):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), encoder))
    source = data.held_out(Use("toy"), encoder, Evaluation(), 0, training=training)
    assert source.streams == {"eval", "density", "random-tokens"}
    assert "encoder" in source.absent["loss"]
    assert list(source.loss_batches()) == []
    assert source.n_loss_tokens == 0


def test_vectors_with_known_truth(tmp_path):
    use = Use("truth", "synthetic")
    data = sources(tmp_path)
    training = data.training(Cohort(use, None, tokens=500))
    assert (training.d_in, training.n_tokens, training.token_policy, training.forward_flops_per_token) == (
        4,
        500,
        None,
        0,
    )
    source = data.held_out(use, None, Evaluation(), 0, training=training)
    assert source.streams == {"eval", "density"}
    assert torch.equal(source.dictionary, torch.eye(4))
    for batch in source.stream("eval", 77):
        assert torch.equal(batch.truth.to_dense(), batch.x)
    assert source.cost({"eval"}) == {"tokens": 0, "flops": 0}
    again = sources(tmp_path).held_out(use, None, Evaluation(), 0, training=training)
    assert again.content == source.content


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_vector_that_is_not_finite_is_refused_by_its_number(split, tmp_path, monkeypatch):
    plain = ToyVectors.batches

    def damaged(self, part, n_tokens, batch, seed):
        for number, made in enumerate(plain(self, part, n_tokens, 100, seed)):
            if part == split and number == 1:
                made.x[7, 2] = float("inf")
            yield made

    monkeypatch.setattr(ToyVectors, "batches", damaged)
    use, data = Use("truth", "synthetic"), sources(tmp_path)
    with pytest.raises(SuiteError, match=f"{split} vector 107 is not finite"):
        training = data.training(Cohort(use, None, tokens=500))
        data.held_out(use, None, Evaluation(), 0, training=training)


def test_what_a_storage_precision_loses_is_recorded_and_said(tmp_path, model, monkeypatch):
    said = []
    for source in ("store", "live"):
        for _ in range(2):  # built, then found
            data = sources(tmp_path, say=said.append)
            found = data.training(Cohort(Use("toy"), model, dtype="float16", activations=How(source=source))).rounding
            assert (found["dtype"], found["under_range"] < 0.01) == ("float16", True)
    assert not said
    monkeypatch.setattr(precision, "UNDER_RANGE", -1.0)
    sources(tmp_path, say=said.append).training(Cohort(Use("toy"), model, dtype="float16"))
    assert "as float16 they lose" in said[0]
    assert sources(tmp_path).training(Cohort(Use("toy"), model)).rounding is None


def test_half_precision_stores_come_back_as_float32(tmp_path, model):
    full = sources(tmp_path).training(Cohort(Use("toy"), model))
    half = sources(tmp_path).training(Cohort(Use("toy"), model, dtype="bfloat16"))
    assert full.content == half.content
    a, b = full.init_sample(50), half.init_sample(50)
    assert b.dtype == torch.float32
    assert torch.equal(a.bfloat16().float(), b)
