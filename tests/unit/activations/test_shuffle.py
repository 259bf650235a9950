"""The block shuffle against a slow reference; seeking, prefetching, closing."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench.activations.rows import MemoryBlock
from saebench.activations.shuffle import shuffled_batches, spans
from saebench.base.random import generator


class Numbers:
    """Rows that say which one they are."""

    d = 1

    def __init__(self, n_rows, fail_at=None):
        self.n_rows, self.fail_at = n_rows, fail_at
        self.asked, self.threads, self.opened, self.closed = [], set(), 0, 0

    def block(self, start, stop):
        self.asked.append((start, stop))
        self.threads.add(threading.current_thread().name)
        if self.fail_at is not None and start <= self.fail_at < stop:
            raise OSError("gone")
        rows = torch.arange(start, stop)
        return MemoryBlock(rows[:, None].float(), {"token_ids": rows.int(), "positions": (rows % 7).int()})

    def head(self, n):
        return torch.arange(min(n, self.n_rows))[:, None].float()

    def open(self):
        self.opened += 1

    def close(self):
        assert self.opened == 1
        self.closed += 1


def reference(n_rows, batch, seed, block):
    """All epochs written out, then cut."""
    order = []
    for epoch in count():
        for index, start in enumerate(range(0, n_rows, block)):
            size = min(block, n_rows - start)
            order += (start + torch.randperm(size, generator=generator(seed, "block", epoch, index))).tolist()
            while len(order) >= batch:
                yield order[:batch]
                order = order[batch:]


def read(rows, n_batches, batch, seed, **options):
    stream = shuffled_batches(rows, batch, seed, **options)
    batches = list(islice(stream, n_batches))
    stream.close()
    assert all(x.target is x.x and x.positions.tolist() == [row % 7 for row in x.token_ids.tolist()] for x in batches)
    assert [b.x[:, 0].tolist() for b in batches] == [b.token_ids.tolist() for b in batches]
    return [b.token_ids.tolist() for b in batches]


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 40),
    batch=st.integers(1, 50),
    block=st.integers(1, 50),
    start=st.integers(0, 30),
    prefetch=st.sampled_from([0, 0, 1, 3]),
    seed=st.integers(0, 5),
)
def test_any_seek_gives_what_the_reference_gives(n_rows, batch, block, start, prefetch, seed):
    expected = list(islice(reference(n_rows, batch, seed, block), start, start + 6))
    assert read(Numbers(n_rows), 6, batch, seed, block=block, start=start, prefetch=prefetch) == expected


def test_by_hand():
    first = [(0, 0, 0, 2, 0), (0, 1, 2, 4, 0), (0, 2, 4, 5, 0), (1, 0, 0, 2, 0), (1, 1, 2, 4, 0)]
    assert list(islice(spans(5, 2, 0), 5)) == first
    assert list(islice(spans(5, 2, 8), 3)) == [(1, 1, 2, 4, 1), (1, 2, 4, 5, 0), (2, 0, 0, 2, 0)]
    (first, second) = read(Numbers(5), 2, 5, 0, block=2)
    for epoch in (first, second):
        assert [sorted(epoch[:2]), sorted(epoch[2:4]), epoch[4:]] == [[0, 1], [2, 3], [4]]


def test_epochs_and_seeds_differ():
    a, b = read(Numbers(64), 2, 64, 0, block=64)
    (c,) = read(Numbers(64), 1, 64, 1, block=64)
    assert sorted(a) == sorted(b) == sorted(c) == list(range(64))
    assert a != b != c != a


def test_a_seek_reads_nothing_before_it():
    rows = Numbers(100)
    read(rows, 1, 10, 0, block=20, start=7)
    assert rows.asked == [(60, 80)]


def test_blocks_are_made_one_at_a_time_unless_prefetched():
    rows = Numbers(100)
    read(rows, 1, 10, 0, block=20)
    assert (rows.asked, rows.threads, rows.closed) == ([(0, 20)], {"MainThread"}, 1)
    rows = Numbers(100)
    read(rows, 1, 10, 0, block=20, prefetch=2)
    assert rows.asked[:1] == [(0, 20)] and len(rows.asked) <= 3
    assert "MainThread" not in rows.threads
    assert rows.closed == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("activations")]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_comes_where_its_rows_are_wanted(prefetch):
    rows = Numbers(100, fail_at=45)
    stream = shuffled_batches(rows, 20, 0, block=20, prefetch=prefetch)
    assert len(list(islice(stream, 2))) == 2
    with pytest.raises(OSError, match="gone"):
        next(stream)
    assert rows.closed == 1
