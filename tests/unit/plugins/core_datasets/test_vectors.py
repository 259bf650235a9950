"""Datasets `activations` and `synthetic`."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saebench.api import MachineError, SuiteError
from saebench_plugins.core_datasets.plugin import (
    ActivationsOptions,
    SyntheticOptions,
    check_synthetic,
    inspect_synthetic,
)
from saebench_plugins.core_datasets.texts import files
from saebench_plugins.core_datasets.vectors import matrices, matrix_survey
from saebench_plugins.core_datasets.vectors.activations import open_activations
from saebench_plugins.core_datasets.vectors.matrices import held_out_rows
from saebench_plugins.core_datasets.vectors.matrix_survey import findings, problems
from saebench_plugins.core_datasets.vectors.synthetic import firing_probabilities, open_synthetic

MATRIX = np.arange(2000 * 3, dtype=np.float32).reshape(2000, 3)


@pytest.fixture(params=["npy", "safetensors", "bfloat16"])
def options(request, tmp_path):
    if request.param == "npy":
        np.save(tmp_path / "m.npy", MATRIX)
        return ActivationsOptions(str(tmp_path / "m.npy"))
    tensor = torch.from_numpy(MATRIX.copy())
    if request.param == "bfloat16":
        tensor = tensor.bfloat16()
    save_file({"acts": tensor, "other": torch.ones(2)}, tmp_path / "m.safetensors")
    return ActivationsOptions(str(tmp_path / "m.safetensors"), key="acts")


def test_rows_come_once_each_in_one_part(options, context):
    opened = open_activations(options, context)
    assert not problems(options)
    assert matrices.site(options).d_in == opened.d_in == 3
    parts = {}
    for split in ("train", "held-out"):
        batches = list(opened.batches(split, 10_000, 128, 0))
        parts[split] = torch.cat([batch.x for batch in batches])
        assert len(parts[split]) == opened.n_tokens(split)
        assert batches[0].x.dtype == torch.float32
        blocks = torch.cat([batch.sequence_ids for batch in batches])
        if "npy" in options.path:
            assert torch.equal((parts[split][:, 0] / 3).long() // 40, blocks)
    together = torch.cat(list(parts.values()))
    expected = (
        torch.from_numpy(MATRIX)
        if "npy" in options.path or together[:, 0].max() == 5997
        else torch.from_numpy(MATRIX).bfloat16().float()
    )
    assert torch.equal(together[together[:, 0].argsort(stable=True), 0].sort().values, expected[:, 0].sort().values)
    assert 0.1 < len(parts["held-out"]) / 2000 < 0.3
    assert opened.manifest()["rows"] == 2000
    assert len(files.recipe(options)["files"]) == 1


def test_order_depends_on_the_seed_alone(options, context):
    opened = open_activations(options, context)

    def read(n, batch, seed):
        return torch.cat([part.x for part in opened.batches("train", n, batch, seed)])

    assert torch.equal(read(500, 64, 1), read(500, 7, 1))
    assert torch.equal(read(500, 64, 1)[:100], read(100, 64, 1))
    assert not torch.equal(read(500, 64, 1), read(500, 64, 2))


def test_tiny_matrices_hold_something_out(tmp_path, context):
    np.save(tmp_path / "m.npy", MATRIX[:6])
    opened = open_activations(ActivationsOptions(str(tmp_path / "m.npy")), context)
    assert opened.n_tokens("held-out") >= 1
    assert opened.n_tokens("train") >= 1


@pytest.mark.parametrize(
    ("write", "key", "words"),
    [
        (None, None, "no such file"),
        (lambda p: np.save(p, MATRIX[:, 0]), None, r"found float32 \[2000\]"),
        (lambda p: np.save(p, MATRIX.astype(int)), None, "found int64"),
        (lambda p: p.write_bytes(b"nothing"), None, "cannot be read as npy"),
    ],
)
def test_bad_npy(write, key, words, tmp_path, context):
    path = tmp_path / "m.npy"
    if write:
        write(path)
    with pytest.raises(SuiteError, match=words):
        open_activations(ActivationsOptions(str(path), key), context)


@pytest.mark.parametrize("stored", [">f4", ">f8", "<f2", "fortran"])
def test_other_layouts_hold_the_same_rows(stored, tmp_path, context):
    matrix = MATRIX[:500] / 4
    np.save(tmp_path / "m.npy", np.asfortranarray(matrix) if stored == "fortran" else matrix.astype(stored))
    options = ActivationsOptions(str(tmp_path / "m.npy"))
    assert not problems(options)
    opened = open_activations(options, context)
    parts = [torch.cat([part.x for part in opened.batches(split, 999, 64, 0)]) for split in ("train", "held-out")]
    assert torch.equal(torch.cat(parts).sort(0).values, torch.from_numpy(matrix))


def _archive(path):
    with path.open("wb") as file:
        np.savez(file, MATRIX)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: np.save(p, np.zeros((0, 3), np.float32)), r"found float32 \[0, 3\]"),
        (lambda p: np.save(p, np.zeros((3, 0), np.float32)), r"found float32 \[3, 0\]"),
        (lambda p: np.save(p, np.float32(1)), r"found float32 \[\]"),
        (lambda p: np.save(p, MATRIX.reshape(200, 10, 3)), r"found float32 \[200, 10, 3\]"),
        (lambda p: np.save(p, MATRIX.astype(complex)), "found complex128"),
        (lambda p: np.save(p, MATRIX > 3), "found bool"),
        (lambda p: np.save(p, np.array([[{}, 1]], dtype=object), allow_pickle=True), "cannot be read as npy"),
        (lambda p: np.save(p, np.zeros(4, [("a", "<f4")])), "expected a matrix"),
        (_archive, "npz archive by another name"),
        (lambda p: p.write_bytes(b""), "cannot be read as npy"),
        (lambda p: (np.save(p, MATRIX), p.write_bytes(p.read_bytes()[:-9])), "cannot be read as npy"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x08\x00(((((((("), "cannot be read as npy"),
        (os.mkfifo, "found a pipe"),
        (os.mkdir, "found a folder"),
    ],
)
def test_what_is_no_matrix_is_one_line(write, words, tmp_path):
    path = tmp_path / "m.npy"
    write(path)
    (problem,) = problems(ActivationsOptions(str(path)))
    assert re.search(words, problem.message)
    assert "\n" not in problem.message


def saved(tmp_path, matrix):
    np.save(tmp_path / "m.npy", matrix)
    return ActivationsOptions(str(tmp_path / "m.npy"))


def rows_of(n=4000, d=32):
    draws = np.random.default_rng(0)
    return (draws.standard_normal((n, d)) @ draws.standard_normal((d, d))).astype(np.float32)


@pytest.mark.parametrize("row", [7, 200])  # of the held-out part, of the training part
@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "f4"), (np.inf, "f2"), (-np.inf, "f8"), (1e300, "f8")])
def test_values_that_are_no_numbers_are_refused_with_their_row(row, value, dtype, tmp_path, context):
    matrix = rows_of().astype(dtype)
    matrix[row, 3] = matrix[row + 900, 1] = value
    options = saved(tmp_path, matrix)
    (problem,) = problems(options)
    part = "held-out" if row == 7 else "training"
    assert f"row {row} (of the {part} part), column 3 is {value:g}" in problem.message
    assert "2 of 4,000 rows" in problem.message
    with pytest.raises(SuiteError, match=f"row {row} "):
        open_activations(options, context)


def test_a_large_matrix_is_sampled_by_the_plan_and_read_whole_by_the_run(tmp_path, context, monkeypatch):
    monkeypatch.setattr(matrix_survey, "MAX_SCAN_BYTES", 4 * 32 * 1000)
    monkeypatch.setattr(matrix_survey, "MAX_SAMPLE_BYTES", 4 * 32 * 500)
    monkeypatch.setattr(matrix_survey, "BLOCKS", 10)
    matrix = rows_of()
    matrix[150, 0] = np.nan  # between two blocks
    options = saved(tmp_path, matrix)
    assert not problems(options)
    assert matrix_survey.survey_matrix(options).facts["rows_read"] == 1000
    with pytest.raises(SuiteError, match=r"row 150 .*1 of 4,000 rows"):
        open_activations(options, context)


def remark_of(options):
    return " ".join(findings(options).remarks)


def test_a_sound_matrix_has_no_remarks(tmp_path):
    found = findings(saved(tmp_path, rows_of()))
    assert found.remarks == ()
    assert found.rows == {"train": 3296, "held-out": 704}
    assert not found.empty


@pytest.mark.parametrize("every", [64, 12])
def test_giant_rows_are_said_with_their_share(every, tmp_path, context):
    matrix = rows_of()
    matrix[::every] *= 3000
    squares = ((matrix - matrix.mean(0, dtype=np.float64)) ** 2).sum(1)
    share = squares[::every].sum() / squares.sum()
    remark = remark_of(saved(tmp_path, matrix))
    rows = {64: "1.6 %", 12: "8.3 %"}[every]
    assert f"{rows} of the rows carry {100 * share:.1f} % of the variance" in remark
    facts = open_activations(saved(tmp_path, matrix), context).manifest()["look"]
    assert facts["giant_rows"] == -(-4000 // every)
    assert facts["giant_rows_variance_share"] == pytest.approx(share, abs=1e-5)


def test_values_near_the_end_of_the_range_are_looked_at_without_a_warning(tmp_path):
    matrix = np.sign(rows_of()) * np.float32(3e38)
    assert findings(saved(tmp_path, matrix)).remarks == ()
    assert findings(saved(tmp_path, rows_of() * np.float32(1e-42))).remarks == ()


def test_far_coordinates_are_said(tmp_path):
    matrix = rows_of()
    matrix[:, 3] += 5000
    matrix[:, 9] -= 700
    remark = remark_of(saved(tmp_path, matrix))
    assert (
        "the mean row carries 100.0 % of the squared length (coordinate 3: mean 5000, spread 5.99; coordinate 9: mean "
        "-700" in remark
    )
    assert "mean row" in remark_of(saved(tmp_path, rows_of() + 30))


def test_equal_rows_in_both_parts_are_counted(tmp_path):
    matrix = rows_of()
    matrix[2000:] = matrix[:2000]
    held_out, _ = held_out_rows(4000)
    train = {row.tobytes() for row in matrix[~held_out]}
    copies = sum(row.tobytes() in train for row in matrix[held_out])
    assert f"{copies} of 704 held-out rows are equal to training rows" in remark_of(saved(tmp_path, matrix))
    assert "all rows are equal" in remark_of(saved(tmp_path, np.ones((400, 4), np.float32)))


def test_values_under_float16_are_said(tmp_path):
    tiny = rows_of() * 1e-6
    assert "of the values lie under float16's normal range" in remark_of(saved(tmp_path, tiny.astype(np.float16)))
    assert remark_of(saved(tmp_path, tiny)) == ""


def test_one_row_leaves_nothing_to_train_on(tmp_path):
    found = findings(saved(tmp_path, rows_of(1)))
    assert "none of its 1 rows falls into this part" in found.empty["train"]


def test_bad_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"acts": torch.ones(3, 2), "other": torch.ones(3)}, path)
    for key, words in (
        (None, "holds 2 tensors (acts, other). Say which"),
        ("act", "Did you mean 'acts'"),
        ("other", "found F32 [3]"),
    ):
        (problem,) = problems(ActivationsOptions(str(path), key))
        assert words in problem.message
    path.write_bytes(b"nothing")
    assert "cannot be read as safetensors" in problems(ActivationsOptions(str(path)))[0].message
    assert "ending" in problems(ActivationsOptions(__file__))[0].message


def synthetic(context, **changes):
    return open_synthetic(
        SyntheticOptions(**{"d_in": 16, "n_features": 40, "active": 4.0, "noise": 0.0, **changes}), context
    )


def test_firing_probabilities_sum_and_fall():
    p = firing_probabilities(100, 7.0, 1.0)
    assert float(p.sum()) == pytest.approx(7.0, abs=1e-9)
    assert bool((p.diff() <= 0).all())
    assert float(p.max()) <= 0.5
    assert torch.allclose(firing_probabilities(10, 2.0, 0.0), torch.full((10,), 0.2, dtype=torch.float64))
    assert float(firing_probabilities(10, 5.0, 3.0).sum()) == pytest.approx(5.0)  # every one at its ceiling


def test_vectors_are_the_truth_times_the_dictionary(context):
    opened = synthetic(context)
    assert torch.allclose(opened.dictionary.norm(dim=1), torch.ones(40), atol=1e-6)
    (batch,) = opened.batches("train", 500, 500, 0)
    assert torch.allclose(batch.truth.to_dense() @ opened.dictionary, batch.x, atol=1e-5)
    assert bool((batch.truth.values > 0).all())


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_features_fire_as_often_as_they_should(correlation, context):
    opened = synthetic(context, correlation=correlation)
    z = torch.cat([batch.truth.to_dense() for batch in opened.batches("train", 40_000, 8192, 0)]) > 0
    assert torch.allclose(z.double().mean(0), opened.probabilities, atol=0.015)
    joint = (z[:, 0] & z[:, 1]).double().mean() / (opened.probabilities[0] * opened.probabilities[1])
    assert (float(joint) > 1.5) == (correlation > 0)


def test_noise_has_the_norm_asked_for(context):
    quiet, loud = (next(synthetic(context, noise=noise).batches("train", 4000, 4000, 0)) for noise in (0.0, 0.3))
    assert float((loud.x - quiet.x).norm(dim=1).mean()) == pytest.approx(0.3, rel=0.05)


def test_streams_do_not_depend_on_the_batch_and_never_meet(context):
    opened = synthetic(context)

    def read(split, batch, seed):
        return torch.cat([part.x for part in opened.batches(split, 3000, batch, seed)])

    whole = read("train", 512, 0)
    assert len(whole) == 3000
    assert torch.equal(whole, read("train", 77, 0))
    assert not torch.equal(whole, read("held-out", 512, 0))
    assert not torch.equal(whole, read("train", 512, 1))
    assert torch.equal(opened.dictionary, synthetic(context).dictionary)
    assert not torch.equal(opened.dictionary, synthetic(context, seed=1).dictionary)


def test_a_file_that_is_not_there_is_told_at_its_path(tmp_path):
    for name in ("tensor.npy", "gone.safetensors"):
        (problem,) = problems(ActivationsOptions(str(tmp_path / name)))
        assert (problem.key, problem.data) == ("path", True)
    save_file({"acts": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    (problem,) = problems(ActivationsOptions(str(tmp_path / "m.safetensors"), key="atcs"))
    assert (problem.key, problem.data) == ("key", True)


@pytest.mark.parametrize("length", [1e-44, 1e-30, 1e-5])
def test_rows_so_short_that_they_decide_a_mean_of_ratios_are_said(length, tmp_path, context):
    matrix = rows_of()
    matrix[7] = 0
    matrix[7, 0] = length
    assert "1 of the rows is so short" in remark_of(saved(tmp_path, matrix))
    assert open_activations(saved(tmp_path, matrix), context).manifest()["look"]["tiny_rows"] == 1
    matrix[7] = 0  # of no length at all: no ratio counts it
    assert findings(saved(tmp_path, matrix)).remarks == ()


def test_a_dictionary_that_no_memory_holds_is_a_line(monkeypatch, context):
    (problem,) = check_synthetic(SyntheticOptions(d_in=16, n_features=10**12))
    assert problem.key == "n_features"
    assert "needs about 360 TB of memory, more than any machine has" in problem.message
    large = SyntheticOptions(d_in=16, n_features=10**10)  # 3.6 TB: some machine has that
    assert check_synthetic(large) == []
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10**6, "SC_PAGE_SIZE": 4096}.__getitem__)
    (remark,) = inspect_synthetic(large).remarks
    assert remark.endswith("needs about 3,600 GB of memory, but this machine has 4 GB. Use fewer n_features.")
    with pytest.raises(MachineError, match="but this machine has 4 GB"):
        open_synthetic(large, context)
    assert inspect_synthetic(SyntheticOptions(d_in=16, n_features=64)).remarks == ()
