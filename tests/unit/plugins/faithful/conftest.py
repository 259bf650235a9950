"""A dataset context without a run behind it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest


class Meter:
    def __init__(self):
        self.tokens = self.flops = 0

    def add(self, *, tokens=0, flops=0):
        self.tokens += tokens
        self.flops += flops


class Context:
    seed = 0
    length = 16

    def __init__(self, cache: Path, model=None, datasets=None):
        self.cache, self.datasets, self.meter = cache, datasets or {}, Meter()
        self._model = model

    @property
    def model(self):
        assert self._model is not None, "this dataset must not ask for a model"
        return self._model

    def dataset(self, name):
        return self.datasets[name]

    @contextmanager
    def progress(self, total, label):
        yield SimpleNamespace(update=lambda n: None)


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(tmp_path)


@pytest.fixture
def make_context(tmp_path):
    return lambda **parts: Context(tmp_path, **parts)
