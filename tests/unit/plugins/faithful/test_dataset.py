"""Dataset `faithful`: resumable, distinct, disjoint, metered."""

from __future__ import annotations

import pytest
import torch

from saebench.api import SuiteError
from saebench_plugins.faithful.dataset import CHUNK, open_faithful
from saebench_plugins.faithful.plugin import FaithfulOptions, check


class Model:
    """Draws uniform tokens; id 0 is BOS and EOS."""

    bos_id = eos_id = 0
    special_ids = frozenset({0})
    forward_flops_per_token = 3

    def __init__(self, vocabulary=9):
        self.vocabulary = vocabulary
        self.calls = 0

    def sample(self, n_sequences, length, *, temperature, top_p, generator):
        self.calls += 1
        ids = torch.randint(self.vocabulary, (n_sequences, length), generator=generator)
        ids[:, 0] = 0
        ended = (ids[:, 1:] == 0).cumsum(1) > 0
        ids[:, 1:][ended] = 0
        return ids


def read(context, options, split, n):
    return list(open_faithful(options, context).sequences(split, n))


OPTIONS = FaithfulOptions(tokens=3000)


def test_enough_tokens_none_twice(make_context):
    context = make_context(model=Model())
    rows = read(context, OPTIONS, "train", 2000)
    counts = [int((row != 0).sum()) for row in rows]
    assert 2000 <= sum(counts) < 2000 + 16
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    assert min(counts) >= 1
    assert all(row.dtype == torch.int64 and len(row) == 16 for row in rows)


def test_the_corpus_is_as_large_as_tokens_says(make_context):
    rows = read(make_context(model=Model()), OPTIONS, "train", 10**9)
    assert 3000 <= sum(int((row != 0).sum()) for row in rows) < 3016


def test_resuming_gives_the_same_samples_at_the_same_cost(make_context, tmp_path):
    whole = make_context(model=Model())
    expected = read(whole, OPTIONS, "train", 3000)
    files = sorted((tmp_path / "train-16").iterdir())
    assert len(files) == whole.model.calls > 1
    files[0].unlink()
    files[1].write_bytes(b"half written")
    again = make_context(model=Model())
    rows = read(again, OPTIONS, "train", 3000)
    assert again.model.calls == 2
    assert again.said == [f"{files[1]}: damaged (its sha256 is not the one that it begins with). It is made again"]
    assert all(torch.equal(a, b) for a, b in zip(rows, expected, strict=True))
    cached = make_context(model=Model())
    read(cached, OPTIONS, "train", 3000)
    assert cached.model.calls == 0
    assert (cached.meter.tokens, cached.meter.flops) == (whole.meter.tokens, whole.meter.flops)
    assert not [path for path in (tmp_path / "train-16").iterdir() if path.name.startswith(".")]


def test_chunks_in_each_others_place_are_sampled_again(make_context, tmp_path):
    expected = read(make_context(model=Model()), OPTIONS, "train", 3000)
    one, two = sorted((tmp_path / "train-16").iterdir())[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    again = make_context(model=Model())
    assert all(torch.equal(a, b) for a, b in zip(read(again, OPTIONS, "train", 3000), expected, strict=True))
    assert (again.model.calls, len(again.said)) == (2, 2)


def test_cost_counts_every_token_drawn(make_context):
    context = make_context(model=Model())
    ids = context.model.sample(CHUNK, 16, temperature=1.0, top_p=1.0, generator=torch.Generator().manual_seed(0))
    opened = open_faithful(OPTIONS, context)
    for row in ids:
        opened._pay(row)
    expected = 0
    for row in ids.tolist():
        tail = row[1:]
        expected += tail.index(0) + 1 if 0 in tail else 15
    assert context.meter.tokens == expected
    assert context.meter.flops == 3 * expected


def test_held_out_never_meets_training_and_follows_the_evaluation_seed(make_context):
    context = make_context(model=Model(vocabulary=3))  # short sequences: many repeats
    options = FaithfulOptions(tokens=800)
    train = {tuple(row.tolist()) for row in read(context, options, "train", 800)}
    held_out = {tuple(row.tolist()) for row in read(context, options, "held-out", 300)}
    assert held_out
    assert not train & held_out
    other = make_context(model=Model(vocabulary=3))
    other.seed = 1
    assert {tuple(row.tolist()) for row in read(other, options, "held-out", 300)} != held_out
    assert {tuple(row.tolist()) for row in read(other, options, "train", 800)} == train


def test_another_seed_is_another_corpus(make_context, tmp_path):
    one = read(make_context(model=Model()), OPTIONS, "train", 100)
    for path in (tmp_path / "train-16").iterdir():
        path.unlink()
    two = read(make_context(model=Model()), FaithfulOptions(tokens=3000, seed=1), "train", 100)
    assert not torch.equal(one[0], two[0])


def test_a_model_that_repeats_itself_is_told(make_context):
    class Parrot(Model):
        def sample(self, n_sequences, length, **_more):
            return torch.tensor([0, 5, 5] + [0] * (length - 3)).expand(n_sequences, length).clone()

    with pytest.raises(SuiteError, match="repeats itself"):
        read(make_context(model=Parrot()), OPTIONS, "train", 100)


def test_manifest_counts_by_part(make_context):
    context = make_context(model=Model())
    opened = open_faithful(OPTIONS, context)
    rows = list(opened.sequences("train", 500))
    assert opened.manifest()["parts"]["train"]["sequences"] == len(rows)
    assert opened.manifest()["length"] == 16


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (FaithfulOptions(tokens=0), "tokens"),
        (FaithfulOptions(5, temperature=0.0), "temperature"),
        (FaithfulOptions(5, top_p=0.0), "top_p"),
        (FaithfulOptions(5, top_p=1.1), "top_p"),
    ],
)
def test_options_that_cannot_be(options, key):
    assert [problem.key for problem in check(options)] == [key]
    assert not check(OPTIONS)
