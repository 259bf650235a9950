"""What an earlier run left and something changed: found before it is read, named in one line, filled again."""

from __future__ import annotations

import shutil
from itertools import islice

import pytest
import torch
from data_toys import Cohort, Evaluation, How, Use, sources

from saebench.activations import manifests
from saebench.activations.store import ActivationStore


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def draw(source):
    return torch.cat([batch.x for batch in islice(source.batches(50, 0), 30)])


def stores(folder):
    """Folders of activations, and of the token windows behind them."""
    made = sorted((folder / "activations").iterdir())
    return [f for f in made if (f / "x-00000.bin").exists()], [f for f in made if (f / "windows.bin").exists()]


@pytest.mark.parametrize("harm", [flip, truncate, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["manifest.json", "documents.txt", "x-00000.bin", "token_ids-00000.bin"])
def test_a_damaged_training_store_is_filled_again(tmp_path, model, name, harm):
    cohort = Cohort(Use("toy"), model)
    expected = draw(sources(tmp_path).training(cohort))
    ((store,), _), said = stores(tmp_path), []
    harm(store / name)
    assert torch.equal(draw(sources(tmp_path, say=said.append).training(cohort)), expected)
    (line,) = said
    assert line.startswith(f"{store / name}: ") and line.endswith(". The store is filled again")
    assert torch.equal(draw(sources(tmp_path, say=said.append).training(cohort)), expected)
    assert len(said) == 1


@pytest.mark.parametrize("name", ["manifest.json", "documents.txt", "windows.bin", "counts.bin"])
def test_damaged_token_windows_are_filled_again(tmp_path, model, name):
    cohort = Cohort(Use("toy"), model, activations=How("live"))
    expected = draw(sources(tmp_path).training(cohort))
    (_, (store,)), said = stores(tmp_path), []
    flip(store / name)
    assert torch.equal(draw(sources(tmp_path, say=said.append).training(cohort)), expected)
    assert [line.split(":")[0] for line in said] == [str(store / name)]


@pytest.mark.parametrize("name", ["manifest.json", "documents.txt", "x-00000.bin", "extras.safetensors"])
def test_damaged_evaluation_data_is_filled_again(tmp_path, model, name):
    def all_streams(data):
        source = data.held_out(Use("toy"), model, Evaluation(), 0, training=None)
        streams = [torch.cat([batch.x for batch in source.stream(name, 64)]) for name in ("eval", "random-tokens")]
        return [*streams, torch.cat([batch.x for batch in source.loss_batches()])]

    expected, said = all_streams(sources(tmp_path)), []
    harmed = [
        folder / name for folder in stores(tmp_path)[0] if (folder / name).exists() and (folder / name).stat().st_size
    ]
    for path in harmed:
        flip(path)
    again = all_streams(sources(tmp_path, say=said.append))
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert sorted(line.split(":")[0] for line in said) == [str(path) for path in harmed]


def test_damaged_vectors_are_filled_again(tmp_path):
    cohort, said = Cohort(Use("truth", "synthetic"), None), []
    expected = draw(sources(tmp_path).training(cohort))
    flip(stores(tmp_path)[0][0] / "x-00000.bin")
    assert torch.equal(draw(sources(tmp_path, say=said.append).training(cohort)), expected)
    assert len(said) == 1


def test_two_stores_in_each_others_place_are_both_filled_again(tmp_path, model):
    cohorts = [Cohort(Use("toy"), model, tokens=tokens) for tokens in (300, 400)]
    expected = [draw(sources(tmp_path).training(cohort)) for cohort in cohorts]
    (one, two), _ = stores(tmp_path)
    one.rename(tmp_path / "aside")
    two.rename(one)
    (tmp_path / "aside").rename(two)
    said = []
    data = sources(tmp_path, say=said.append)
    assert all(torch.equal(draw(data.training(c)), x) for c, x in zip(cohorts, expected, strict=True))
    assert sorted(line.split(":")[0] for line in said) == sorted(str(f / "manifest.json") for f in (one, two))


def test_rows_that_nobody_will_read_cost_no_check_and_no_store(tmp_path, model):
    cohort, said = Cohort(Use("toy"), model), []
    source = sources(tmp_path).training(cohort)
    ((store,), _) = stores(tmp_path)
    flip(store / "x-00000.bin")
    data = sources(tmp_path, say=said.append)
    (facts,) = data.training_pass([cohort], [False])
    assert (facts.content, facts.n_tokens, said) == (source.content, source.n_tokens, [])
    data.training_pass([cohort], [True])  # the same store, read after all
    assert len(said) == 1
    shutil.rmtree(store)
    (facts,) = sources(tmp_path, say=said.append).training_pass([cohort], [False])
    assert (facts.content, facts.n_tokens, store.exists()) == (source.content, source.n_tokens, False)


def test_what_a_run_has_proven_is_not_read_again_when_models_take_turns(tmp_path, model, monkeypatch):
    cohort, proven = Cohort(Use("toy"), model), []
    sources(tmp_path).training(cohort)
    sources(tmp_path).held_out(Use("toy"), model, Evaluation(), 0, training=None)
    monkeypatch.setattr(manifests, "prove", lambda path, _sha256: proven.append(path))
    data = sources(tmp_path)
    for _ in range(2):
        data.training(cohort)
        data.held_out(Use("toy"), model, Evaluation(), 0, training=None)
        data.release()
    assert len(proven) == len(set(proven)) > 0


def test_a_damaged_store_makes_room_before_it_is_filled_again(tmp_path, model, monkeypatch):
    cohort = Cohort(Use("toy"), model)
    sources(tmp_path).training(cohort)
    ((store,), _) = stores(tmp_path)
    flip(store / "x-00000.bin")
    building, there = ActivationStore.building, []

    def seen(*arguments, **options):
        there.append(store.exists())
        return building(*arguments, **options)

    monkeypatch.setattr(ActivationStore, "building", seen)
    sources(tmp_path).training(cohort)
    assert there == [False]
