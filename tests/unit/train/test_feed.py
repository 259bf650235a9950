from __future__ import annotations

import pytest
import torch

from saebench.api import ActivationBatch, PluginError, SparseCodes
from saebench.train.feed import Feed, SharedBatch, rms_scale, scaled


@pytest.fixture
def place(device):
    return torch.device(device)


def test_scaling_divides_inputs_targets_and_true_codes(kit, place):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    truth = SparseCodes.from_dense(torch.eye(4))
    made = scaled(ActivationBatch(x, x, truth=truth), 2.0, place)
    torch.testing.assert_close(made.x, x / 2)
    assert made.target is made.x
    torch.testing.assert_close(made.truth.to_dense(), torch.eye(4) / 2)
    plain = scaled(ActivationBatch(x.double(), x.double() + 1), 1.0, place)
    assert plain.x.dtype == plain.target.dtype == torch.float32
    torch.testing.assert_close(plain.target, x + 1)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_shared_batch_is_scaled_once_and_never_the_source_s_own_memory(scale, place):
    raw = ActivationBatch(torch.ones(2, 3), torch.ones(2, 3))
    shared = SharedBatch(raw, place)
    first = shared.scaled(scale)
    assert shared.scaled(scale) is first
    shared.check(scale, "cell")
    first.x.add_(1)
    with pytest.raises(PluginError, match="cell: the module changed the batch"):
        shared.check(scale, "cell")
    torch.testing.assert_close(shared.scaled(scale).x, torch.ones(2, 3) / scale)
    assert torch.equal(raw.x, torch.ones(2, 3))


def test_a_batch_that_was_made_to_need_a_gradient_is_noticed(place):
    shared = SharedBatch(ActivationBatch(torch.ones(2, 3), torch.ones(2, 3)), place)
    shared.scaled(1.0).x.requires_grad_()
    with pytest.raises(PluginError, match="changed the batch"):
        shared.check(1.0, "cell")


def test_a_feed_begins_anywhere_and_keeps_the_first_tokens(kit, place):
    source = kit.source()
    feed = Feed(source, 64, 5, place)
    all_of_it = [batch.x for batch, _ in zip(kit.source().batches(64, 5), range(6), strict=False)]
    feed.begin(2)
    torch.testing.assert_close(feed.next().raw.x, all_of_it[2])
    assert feed.waited > 0
    first = list(feed.first(130))
    assert len(first) == 3
    read = source.read
    assert [batch.x is again.x for batch, again in zip(first, feed.first(130), strict=True)] == [True] * 3
    assert source.read == read
    longer = [batch.x for batch in feed.first(64 * 6)]
    assert torch.equal(torch.cat(longer), torch.cat(all_of_it))
    torch.testing.assert_close(feed.next().raw.x, all_of_it[3])  # reading the first ones did not move the feed
    assert feed.scale == rms_scale(source.x)
    feed.end()
    feed.end()
