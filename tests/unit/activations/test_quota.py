"""Disk space of stores: the disk, the quota, which stores are removed for others."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import namedtuple

import pytest
import torch
from data_toys import Cohort, Evaluation, How, Use, sources

from saebench.activations.manifests import write_manifest
from saebench.activations.quota import GB, Need, check_plan, folder_bytes, make_room, row_bytes, stored, window_bytes
from saebench.activations.sources.store_needs import needs_of
from saebench.api import MachineError


@pytest.fixture
def disk(monkeypatch):
    """Says how many bytes are free."""

    def free(n_bytes):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**12, 0, n_bytes))

    free(10**12)
    return free


def shelve(root, name, n_bytes, *, used=0, **key):
    folder = root / (name * 16 if len(name) == 1 else name)
    folder.mkdir(parents=True)
    write_manifest(folder, {"name": name, **key}, {}, {})
    (folder / "x-00000.bin").write_bytes(b"0" * (n_bytes - (folder / "manifest.json").stat().st_size))
    os.utime(folder / "manifest.json", ns=(used, used))


def need(name, n_bytes):
    return Need({"name": name}, n_bytes, f"store {name}")


def test_sizes_by_hand():
    assert row_bytes(768, "float16") == 2 * 768 + 12
    assert row_bytes(4, "float32", tokens=False) == 16
    assert window_bytes(127 * 3, 128) == 3 * (128 + 1) * 4
    assert window_bytes(127 * 3 + 1, 128) == 4 * (128 + 1) * 4


def test_a_store_takes_what_was_predicted(tmp_path, model):
    data = sources(tmp_path)
    cohort = Cohort(Use("toy"), model)
    data.training(cohort)
    predicted = sum(need.n_bytes for need in needs_of(cohort))
    small = sum(
        path.stat().st_size
        for name in ("manifest.json", "documents.txt")
        for path in (tmp_path / "activations").rglob(name)
    )
    real = folder_bytes(tmp_path / "activations") - small
    # windows hold BOS between documents too, so there are a few more than full ones would be
    assert predicted <= real <= 1.1 * predicted


def test_the_disk_must_hold_all_that_is_missing(tmp_path, disk):
    shelve(tmp_path, "a", 500)
    steps = [[need("a", 500), need("b", 300)], [need("b", 300), need("c", 400)]]
    disk(700)
    check_plan(tmp_path, steps, None)
    disk(699)
    with pytest.raises(MachineError, match=r"2 missing activation stores takes? 0\.0 MB"):
        check_plan(tmp_path, steps, None)


def test_a_quota_is_checked_step_by_step(tmp_path, disk):
    shelve(tmp_path, "e", 900)
    apart = [[need("a", 500)], [need("b", 600)]]
    check_plan(tmp_path, apart, 1000 / GB)
    with pytest.raises(MachineError, match="store b, with the stores that are still needed beside it"):
        check_plan(tmp_path, apart, 599 / GB)
    again = [*apart, [need("a", 500)]]  # a child reads the first store again: it must stay beside the second
    check_plan(tmp_path, again, 1100 / GB)
    with pytest.raises(MachineError, match="quota_gb"):
        check_plan(tmp_path, again, 1099 / GB)
    disk(100)  # under a quota the folder never grows past it, so little may be free
    check_plan(tmp_path, apart, 1000 / GB)


def test_the_least_recently_used_make_room_first(tmp_path):
    for number, name in enumerate(("d", "b", "c", "a")):
        shelve(tmp_path, name, 1000, used=number)
    for name in (".half.tmp", "my-backup"):
        shelve(tmp_path, name, 1000)
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    shelve(elsewhere, "f", 1000)
    (tmp_path / ("f" * 16)).symlink_to(elsewhere / ("f" * 16))
    assert [store.folder.name[0] for store in stored(tmp_path)] == ["d", "b", "c", "a"]

    def keep(store):
        return store.folder.name[0] == "b"

    assert make_room(tmp_path, 10**9, None, keep, "x") == []
    assert make_room(tmp_path, 1000, 7000 / GB, keep, "x") == []
    removed = make_room(tmp_path, 1500, 6000 / GB, keep, "x")
    assert [path.name[0] for path in removed] == ["d", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".half.tmp", "a" * 16, "b" * 16, "f" * 16, "my-backup"]
    assert folder_bytes(elsewhere) == 1000
    with pytest.raises(MachineError, match=r"Raise `activations: quota_gb`"):
        make_room(tmp_path, 3001, 6000 / GB, keep, "x")
    assert len(stored(tmp_path)) == 2


def test_check_disk_adds_up_the_stores_of_a_suite(tmp_path, model, disk):
    cohorts = [Cohort(Use("toy"), model, tokens=10_000, data_seed=seed) for seed in (0, 1)]
    one = 10_000 * (16 * 4 + 12) + window_bytes(10_000, 16)
    disk(2 * one)
    sources(tmp_path).check_disk(cohorts)
    disk(2 * one - 1)
    with pytest.raises(MachineError, match="the suite's 4 missing activation stores"):
        sources(tmp_path).check_disk(cohorts)
    sources(tmp_path).check_disk([dataclasses.replace(cohort, activations=How("live")) for cohort in cohorts])
    sources(tmp_path).check_disk([dataclasses.replace(cohort, dtype="float16") for cohort in cohorts])
    twice = [cohorts[0], dataclasses.replace(cohorts[0], shuffle=7)]
    sources(tmp_path).check_disk(twice)
    sources(tmp_path).check_disk([])


def test_what_is_built_need_not_fit_again(tmp_path, model, disk):
    cohort = Cohort(Use("toy"), model)
    sources(tmp_path).training(cohort)
    disk(0)
    sources(tmp_path).check_disk([cohort])


def test_cohorts_make_room_for_one_another_under_a_quota(tmp_path, model):
    first = sources(tmp_path / "first")
    first.training(Cohort(Use("toy"), model))
    size = folder_bytes(tmp_path / "first" / "activations")
    how = How(quota_gb=2.5 * size / GB)
    first, second, third = (Cohort(Use("toy"), model, data_seed=seed, activations=how) for seed in range(3))
    data = sources(tmp_path / "run")
    data.check_disk([first, second, third, first])
    folders = {}
    for cohort in (first, second, third):
        source = data.training(cohort)
        folders[cohort.data_seed] = source.rows.store.folder
        next(source.batches(10, 0))
    assert folders[0].exists() and folders[2].exists() and not folders[1].exists()  # the first is read again
    kept = data.training(first)
    assert kept.rows.store.folder == folders[0]
    assert folder_bytes(tmp_path / "run" / "activations") <= how.quota_gb * GB
    data.training(second)
    assert folders[1].exists()
    with pytest.raises(MachineError, match="quota_gb"):
        data.training(dataclasses.replace(first, tokens=2000, activations=How(quota_gb=0.5 * size / GB)))


def test_cached_evaluation_data_stays_under_a_quota(tmp_path, model):
    data = sources(tmp_path)
    cohort = Cohort(Use("toy"), model)
    training = data.training(cohort)
    evaluation = data.held_out(Use("toy"), model, Evaluation(), 0, training=training)
    list(evaluation.stream("random-tokens", 64))
    held = {path.name for path in evaluation.shared.folders}
    assert len(held) == 2
    size = folder_bytes(tmp_path / "activations")
    data.training(dataclasses.replace(cohort, data_seed=1, activations=How(quota_gb=1.1 * size / GB)))
    there = {store.folder.name for store in stored(tmp_path / "activations")}
    assert held < there
    assert training.rows.store.folder.name not in there
    assert torch.isfinite(torch.cat([batch.x for batch in evaluation.stream("eval", 64)])).all()
