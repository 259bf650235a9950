"""Validation and test: nothing is in both, whatever kind of data."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from data_toys import Cohort, Evaluation, Use, sources

from saebench.activations.sources.validation_split import part_of, vector_digests, vectors_of
from saebench.api import ActivationBatch, SparseCodes, SuiteError, document_digest, split_of
from saebench.artifacts import digest

TEST = Evaluation(part="test")
PINNED = ["validation", "test", "test", "validation", "test", "test", "test", "test"]


def parts(data, use, model, training, seed=0):
    """(all held out, test, validation) of one dataset and seed."""
    return (
        data.held_out(use, model, Evaluation(), seed, training=training),
        data.held_out(use, model, TEST, seed, training=training),
        data.held_out(use, model, TEST, seed, training=training, part="validation"),
    )


def test_one_in_four_by_a_hash_of_its_own():
    digests = [document_digest(str(number)) for number in range(8000)]
    held_out = [code for code in digests if split_of(code) == "held-out"]
    for codes in (digests, held_out):
        share = sum(part_of(code) == "validation" for code in codes) / len(codes)
        assert share == pytest.approx(0.25, abs=0.03)
    assert part_of("a") == part_of("a")
    # written down, so that no later change moves documents from test to validation unseen
    assert [part_of(str(number)) for number in range(8)] == PINNED


def test_documents_are_in_one_part(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    whole, test, validation = parts(data, Use("toy", options={"n": 2000}), model, training)
    documents = [source.shared.documents for source in (whole, test, validation)]
    assert all(documents)
    assert not documents[1] & documents[2]
    assert {part_of(code) for code in documents[1]} == {"test"}
    assert {part_of(code) for code in documents[2]} == {"validation"}
    assert {part_of(code) for code in documents[0]} == {"test", "validation"}
    assert len({source.content for source in (whole, test, validation)}) == 3
    assert test.n_tokens == validation.n_tokens == 300
    # other evaluation seeds shuffle, and move nothing
    _, other_test, other_validation = parts(data, Use("toy", options={"n": 2000}), model, training, seed=1)
    assert not other_test.shared.documents & documents[2]
    assert not other_validation.shared.documents & documents[1]


def test_a_part_uses_what_there_is_and_an_empty_one_is_refused(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    few = data.held_out(Use("toy", options={"n": 300}), model, TEST, 0, training=training, part="validation")
    assert 0 < few.n_tokens < 300
    none = Use("toy", options={"n": 6})
    with pytest.raises(SuiteError, match=r"its validation part \(of what is held-out\) does not fill one window"):
        data.held_out(none, model, TEST, 0, training=training, part="validation")


def test_generated_sequences_are_in_one_part(tmp_path, model):
    use = Use("samples", kind="generated", options={"n": 400})
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    _, test, validation = parts(data, use, model, training)
    assert {part_of(code) for code in test.shared.documents} == {"test"}
    assert {part_of(code) for code in validation.shared.documents} == {"validation"}
    assert test.n_tokens == validation.n_tokens == 300


def test_samples_of_the_model_itself_are_in_one_part_too(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    _, test, validation = parts(data, Use("toy", options={"n": 2000}), model, training)
    samples = [source.shared.stream_store("self-sampled", training.document_digests) for source in (test, validation)]
    assert {part_of(code) for code in samples[0].documents} == {"test"}
    assert {part_of(code) for code in samples[1].documents} == {"validation"}
    assert samples[0].n_rows >= 200


def test_vectors_are_in_one_part_with_their_true_codes(tmp_path):
    use = Use("truth", kind="synthetic")
    data = sources(tmp_path)
    training = data.training(dataclasses.replace(Cohort(use, None), d_in=4))
    _, test, validation = parts(data, use, None, training)
    rows = {}
    for name, source in (("test", test), ("validation", validation)):
        batches = list(source.stream("eval", 64))
        assert sum(batch.n_tokens for batch in batches) == 300
        for batch in batches:
            assert torch.equal(batch.truth.to_dense(), batch.x)  # toy vectors are their own true codes
        rows[name] = {tuple(row.tolist()) for batch in batches for row in batch.x}
    assert rows["test"]
    assert rows["validation"]
    assert not rows["test"] & rows["validation"]
    assert not test.shared.documents & validation.shared.documents
    again = sources(tmp_path).held_out(use, None, TEST, 0, training=training, part="validation")
    assert (again.content, again.shared.documents) == (validation.content, validation.shared.documents)


def test_vectors_of_one_sequence_stay_together():
    def batches():
        for start in range(0, 400, 80):
            rows = torch.arange(start, start + 80)
            x = rows[:, None].float().repeat(1, 3)
            yield ActivationBatch(
                x,
                x,
                rows % 5,
                rows % 10,
                rows // 10,
                SparseCodes.from_dense((rows[:, None] % 3 == torch.arange(3)) * x),
            )

    found = {}
    for part in ("test", "validation"):
        digests: set[str] = set()
        taken = list(vectors_of(batches(), part, 1000, digests))
        sequences = torch.cat([batch.sequence_ids for batch in taken])
        assert {f"sequence:{number}" for number in sequences.tolist()} == digests
        assert all(int((sequences == number).sum()) == 10 for number in sequences.unique())
        for batch in taken:
            assert batch.target is batch.x
            rows = batch.x[:, 0].long()
            assert torch.equal(batch.sequence_ids, rows // 10)
            assert torch.equal(batch.token_ids, rows % 5)
            assert torch.equal(batch.truth.to_dense(), (rows[:, None] % 3 == torch.arange(3)) * batch.x)
        found[part] = torch.cat([batch.x for batch in taken])
    assert len(found["test"]) + len(found["validation"]) == 400
    (first,) = vectors_of(batches(), "test", 25, set())
    assert torch.equal(first.x, found["test"][:25])


def test_equal_vectors_have_one_digest():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    a, b, c = vector_digests(ActivationBatch(x, x))
    assert a == c != b


def test_without_a_search_the_key_of_a_store_says_nothing_of_it(tmp_path, model):
    data = sources(tmp_path)
    training = data.training(Cohort(Use("toy"), model))
    whole, test, validation = parts(data, Use("toy", options={"n": 2000}), model, training)
    folders = {source.shared.store.folder for source in (whole, test, validation)}
    assert len(folders) == 3
    sizes = {"tokens": 300, "loss_tokens": 150, "density_tokens": 200}
    key = data.context.key(Use("toy", options={"n": 2000}), model, split="held-out", seed=0, **sizes)
    assert data.context.run.activations(digest(key)) == whole.shared.store.folder
