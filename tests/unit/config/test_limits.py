"""Suites of sizes, names and numbers that no run can take: refused in a line, and at once."""

from __future__ import annotations

import pytest

from saebench.api import SuiteError
from saebench.config import load_suite

SMALL = """\
name: mini
datasets: {truth: {plugin: synthetic}}
entries:
  - {name: a, architecture: topk, dataset: truth, config: {d_sae: 64}}
budget: {tokens: 1000}
"""


def refusal(tmp_path, monkeypatch, old: str, new: str) -> list[str]:
    monkeypatch.chdir(tmp_path)
    assert old in SMALL
    (tmp_path / "s.yaml").write_text(SMALL.replace(old, new))
    with pytest.raises(SuiteError) as caught:
        load_suite("s.yaml")
    lines = str(caught.value).splitlines()
    assert all(len(line) <= 1000 for line in lines)
    return lines


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mini", "x" * 121, "s.yaml:1 name: got a name of 121 bytes; at most 120 are allowed, as it names files."),
        ("name: a,", f"name: {'y' * 300},", "entries[0].name: got a name of 300 bytes; at most 120 are allowed"),
        ("name: a,", "name: a.,", "got 'a.' but letters, digits, '.', '_' and '-' are allowed"),
        ("name: a,", "name: ..,", "got '..' but letters"),
        ("name: a,", 'name: "a\\n",', "got 'a\\n' but letters"),
        ("name: a,", "name: é,", "got 'é' but letters"),
        (
            "1000",
            "9223372036854775808",
            "budget.tokens: got 9223372036854775808 but a whole number of at least 1 and below 2^63",
        ),
        ("1000", "1e300", "budget.tokens: got 1e+300 but a whole number of at least 1 and below 2^63 is expected."),
        ("1000", "1e999", "budget.tokens: got '1e999'; only finite numbers up to 1.7e308 are allowed."),
        ("64", ".nan", "entries[0].config.d_sae: got '.nan'; only finite numbers"),
        ("64", "9" * 5000, "entries[0].config.d_sae: got '99999"),
        ("name: a,", f"name: a, {'z' * 900}: 3,", "s.yaml:4 entries[0]." + "z" * 57 + "...: unknown key"),
    ],
)
def test_names_and_numbers(tmp_path, monkeypatch, old, new, said):
    (line,) = refusal(tmp_path, monkeypatch, old, new)
    assert said in line


def test_names_that_differ_in_case_are_one_on_some_machines(tmp_path, monkeypatch):
    other = "  - {name: A, architecture: topk, dataset: truth, config: {d_sae: 32}}\nbudget"
    assert refusal(tmp_path, monkeypatch, "budget", other) == [
        "s.yaml:5 entries[1].name: entry name 'a' is given twice. Keep one, or give this one another name."
    ]


def test_a_sweep_of_a_thousand_million_cells(tmp_path, monkeypatch):
    values = list(range(1000))
    sweep = f"config: {{d_sae: 64}}, sweep: {{a: {values}, b: {values}, c: {values}}}"
    (line,) = refusal(tmp_path, monkeypatch, "config: {d_sae: 64}", sweep)
    assert "1,000,000,000 points at 1 places with 1 seeds each are 1,000,000,000 cells; a suite has at most" in line


def test_a_child_multiplies_its_parent(tmp_path, monkeypatch):
    values = list(range(150))
    child = f"  - {{name: b, architecture: topk, dataset: truth, init_from: a, sweep: {{b: {values}}}}}\nbudget"
    text = SMALL.replace("{d_sae: 64}}", f"{{d_sae: 64}}, sweep: {{a: {values}}}}}").replace("budget", child)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SuiteError, match=r"entries\[1\]: 22,500 points"):
        load_suite("s.yaml")


def test_many_seeds_are_compared_in_linear_time(tmp_path, monkeypatch):
    (line,) = refusal(tmp_path, monkeypatch, "budget:", f"seeds: {{init: {[*range(15_000), 0]}}}\nbudget:")
    assert line.endswith("seeds.init[15000]: seed 0 is given twice. Keep one.")


def test_a_chain_of_suites_has_an_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(3000):
        (tmp_path / f"s{i}.yaml").write_text(f"extends: s{i + 1}.yaml\n")
    with pytest.raises(SuiteError, match=r"s16.yaml:1 extends: a chain of more than 16 suites"):
        load_suite("s0.yaml")


def test_a_path_with_a_nul(tmp_path):
    with pytest.raises(SuiteError, match="no file has a NUL"):
        load_suite("a\0.yaml")
