"""Every file of a run folder, damaged in every way: named, made again by the same command, and no number changes.

A new kind of file is a new line in `PRODUCTS` or `MATERIAL`; a file that no line covers fails the first test.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from suites import text_file

from saebench.artifacts import iter_groups
from saebench.jobs import load_sae, run_suite
from saebench.leaderboard import diff
from saebench.testing import make_model
from saebench.train import TrainOutcome

pytestmark = pytest.mark.usefixtures("without_pages")

SUITE = """
schema: 1
name: damage
models:
  - {{id: {folder}/model, hookpoints: [layers.1], context: 32}}
datasets:
  mine: {{plugin: local, path: {folder}/text.txt}}
  own: {{plugin: faithful, tokens: 1_000}}
entries:
  - {{name: topk, architecture: topk, dataset: mine, config: {{d_sae: 32, k: 4}}}}
  - {{name: own, architecture: topk, dataset: own, config: {{d_sae: 32, k: 4}}}}
  - {{name: child, architecture: ssae, dataset: mine, init_from: {{entry: topk}}, config: {{tilt: 1.0}}}}
train: {{batch: 128}}
evaluation: {{datasets: [mine], tokens: 400, loss_tokens: 100, density_tokens: 400}}
budget: {{primary: tokens, tokens: 1_000}}
seeds: {{init: [0, 1]}}
controls: false
"""


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        glob: Where they are.
        goes_unseen: Their removal looks as if they had never been made.
        beside: A file that is beside each of them.
    """

    glob: str
    goes_unseen: bool = False
    beside: str = ""


PRODUCTS = {
    "record": Kind("records/*/*/*.json", goes_unseen=True),
    "group": Kind("groups/*/*/*.json", goes_unseen=True),
    "weights": Kind("checkpoints/*/sae.safetensors"),
    "meta": Kind("checkpoints/*/sae.json"),
    "arrays": Kind("arrays/[!g]*.safetensors"),
    "group arrays": Kind("arrays/group-*.safetensors"),
    "plan": Kind("plan.json", goes_unseen=True),
}
"""What a run is for: proven by every run."""
MATERIAL = {
    "manifest": Kind("activations/*/manifest.json", beside="x-00000.bin"),
    "documents": Kind("activations/*/documents.txt", beside="x-00000.bin"),
    "vectors": Kind("activations/*/x-*.bin"),
    "token ids": Kind("activations/*/token_ids-*.bin"),
    "positions": Kind("activations/*/positions-*.bin"),
    "sequences": Kind("activations/*/sequence_ids-*.bin"),
    "document numbers": Kind("activations/*/document_ids-*.bin"),
    "extras": Kind("activations/*/extras.safetensors"),
}
"""What products are made of: proven where it is read."""
TOKENS = {
    "tokens' manifest": Kind("activations/*/manifest.json", beside="windows.bin"),
    "tokens' documents": Kind("activations/*/documents.txt", beside="windows.bin"),
    "windows": Kind("activations/*/windows.bin"),
    "counts": Kind("activations/*/counts.bin"),
}
"""What activations are made of."""
SAMPLES = {"samples": Kind("cache/*/*/*", goes_unseen=True)}
"""What tokens are made of."""
KINDS = (*PRODUCTS.values(), *MATERIAL.values(), *TOKENS.values(), *SAMPLES.values())
NOT_READ = (".lock", ".progress.json", "leaderboard/*")


def flip(path: Path, _others: list[Path]) -> list[Path]:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return [path]


def truncate(path: Path, _others: list[Path]) -> list[Path]:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [path]


def swap(path: Path, others: list[Path]) -> list[Path]:
    """With one of the same kind and other content, where there is one."""
    content = path.read_bytes()
    for other in others:
        if other.read_bytes() != content:
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            return [path, other]
    return []


def remove(path: Path, _others: list[Path]) -> list[Path]:
    path.unlink()
    return [path]


Harm = Callable[[Path, list[Path]], list[Path]]
HARMS = [flip, truncate, swap, remove]
SHARED = ("checkpoints", "activations")
"""Of two damaged files in one folder here only the first is named: the folder is made again as a whole."""


def damage(run: Path, kinds: Mapping[str, Kind], harm: Harm) -> dict[Path, Kind]:
    """Harms one file (of a swap, two) of every kind, of different cells or stores as far as there are so many."""
    harmed: dict[Path, Kind] = {}
    for number, kind in enumerate(kinds.values()):
        folders = {path.parent for path in harmed if path.parent.parent.name in SHARED}
        there = [path for path in files(run, kind) if path.parent not in folders]
        if there:
            harmed |= dict.fromkeys(harm(there[number % len(there)], there), kind)
    return harmed


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    make_model(folder / "model", "llama")
    text_file(folder / "text.txt")
    (folder / "damage.yaml").write_text(SUITE.format(folder=folder))
    return folder / "damage.yaml"


@pytest.fixture(scope="module")
def whole(suite: Path) -> Path:
    """The run folder of an undisturbed run."""
    assert run_suite(suite, out=suite.parent / "whole").exit_status == 0
    return suite.parent / "whole"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def files(run: Path, kind: Kind) -> list[Path]:
    return sorted(path for path in run.glob(kind.glob) if path.stat().st_size and (path.parent / kind.beside).exists())


def again(suite: Path, run: Path) -> list[str]:
    said: list[str] = []
    assert run_suite(suite, out=run, say=said.append).exit_status == 0
    return said


def as_before(whole: Path, run: Path) -> None:
    """Facts, groups, weights and arrays are those of the undisturbed run."""
    assert diff(whole, run) == []
    groups = [{record["group_id"]: record["facts"] for _, record in iter_groups(folder)} for folder in (whole, run)]
    assert groups[0] == groups[1]
    for kind in ("weights", "arrays", "group arrays"):
        for path in files(whole, PRODUCTS[kind]):
            assert (run / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


def named(path: Path, said: list[str]) -> bool:
    return any(line.startswith(f"{path}: ") and line.endswith(" again") for line in said)


def test_every_file_of_a_run_is_of_a_kind(whole: Path) -> None:
    covered = {path for kind in KINDS for path in whole.glob(kind.glob)}
    covered |= {path for glob in NOT_READ for path in whole.glob(glob)}
    assert {path for path in whole.rglob("*") if path.is_file()} - covered == set()
    assert all(files(whole, kind) for kind in KINDS)


@pytest.mark.parametrize("harm", HARMS)
# in two halves: where a record is damaged it is not known what its arrays should be, and they are made
# again unseen
@pytest.mark.parametrize("names", [("record", "group", "weights"), ("meta", "arrays", "group arrays", "plan")])
def test_damaged_products_are_all_found_and_made_again_in_one_run(
    suite: Path, whole: Path, run: Path, harm: Harm, names: tuple[str, ...]
) -> None:
    harmed = damage(run, {name: PRODUCTS[name] for name in names}, harm)
    assert len(harmed) >= len(names)
    said = again(suite, run)
    unseen = [
        path for path, kind in harmed.items() if not named(path, said) and not (harm is remove and kind.goes_unseen)
    ]
    assert unseen == [], said
    as_before(whole, run)


@pytest.mark.parametrize(
    "harm", [harm if index == 0 else pytest.param(harm, marks=pytest.mark.slow) for index, harm in enumerate(HARMS)]
)
@pytest.mark.parametrize("kinds", [MATERIAL, TOKENS, SAMPLES])
def test_damaged_material_is_all_found_and_made_again_in_one_run(
    suite: Path, whole: Path, run: Path, harm: Harm, kinds: dict[str, Kind]
) -> None:
    for product in ("records", "groups", "checkpoints", "arrays"):
        shutil.rmtree(run / product)
    below = {id(TOKENS): "activations/*/x-*.bin", id(SAMPLES): "activations/*/manifest.json"}
    for store in [path.parent for path in run.glob(below.get(id(kinds), "-"))]:
        shutil.rmtree(store)
    harmed = damage(run, kinds, harm)
    said = again(suite, run)
    unseen = [
        path for path, kind in harmed.items() if not named(path, said) and not (harm is remove and kind.goes_unseen)
    ]
    assert unseen == [], said
    as_before(whole, run)


def test_a_run_with_nothing_to_do_leaves_every_byte(suite: Path, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again(suite, run)
    assert {path: path.read_bytes() for path in before} == before


def test_checkpoints_in_each_others_folder_are_both_trained_again_once(suite: Path, whole: Path, run: Path) -> None:
    one, two = sorted((run / "checkpoints").iterdir())[:2]
    one.rename(run / "aside")
    two.rename(one)
    (run / "aside").rename(two)
    said = again(suite, run)
    assert named(one / "sae.json", said)
    assert named(two / "sae.json", said)
    as_before(whole, run)
    assert [line for line in again(suite, run) if " again" in line] == []


def cell_of(run: Path, entry: str, seed: int = 0) -> tuple[Path, str]:
    """Record and 16 digits of the id of a cell."""
    from saebench.artifacts import read_record

    (path,) = (run / "records" / "damage" / entry).glob(f"default-s{seed}-*.json")
    return path, read_record(path)["cell_id"][:16]


def test_a_damaged_parent_is_trained_before_a_child_that_is_due(suite: Path, whole: Path, run: Path) -> None:
    parent, child = cell_of(run, "topk")[1], cell_of(run, "child")
    child[0].unlink()
    shutil.rmtree(run / "checkpoints" / child[1])
    shutil.rmtree(run / "checkpoints" / parent)
    said = again(suite, run)
    assert f"{run / 'checkpoints' / parent}: missing, and needed. The cell is trained again" in said
    as_before(whole, run)


def test_members_that_a_due_group_needs_are_made_again_before_it(suite: Path, whole: Path, run: Path) -> None:
    shutil.rmtree(run / "groups")
    for entry in ("topk", "own", "child"):
        shutil.rmtree(run / "checkpoints" / cell_of(run, entry)[1])
    (run / "arrays" / f"{cell_of(run, 'topk', 1)[1]}.safetensors").unlink()
    said = again(suite, run)
    assert sum(line.endswith("missing, and needed. The cell is trained again") for line in said) == 3
    as_before(whole, run)


def test_weights_that_a_person_removed_and_nothing_needs_stay_away(suite: Path, whole: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "arrays")
    for _ in range(2):
        said = again(suite, run)
        assert sum("Nothing needs these weights now" in line for line in said) == 1
        assert not (run / "checkpoints").exists()
    assert diff(whole, run) == []


def test_a_score_is_not_lost_when_it_cannot_be_made_again(
    suite: Path, whole: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import saebench.train

    def failing(jobs: Any, *_: Any, progress: Any, **__: Any) -> Iterator[tuple[Any, TrainOutcome]]:
        for cell, _source in jobs:
            progress.started(cell)
            yield cell, TrainOutcome(cell.cell_id, "failed", {"type": "RuntimeError", "message": "no memory today"})

    parent, child = cell_of(run, "topk"), cell_of(run, "child")
    flip(run / "checkpoints" / parent[1] / "sae.safetensors", [])
    flip(run / "checkpoints" / child[1] / "sae.safetensors", [])
    child[0].unlink()
    kept = [
        path for room in ("records", "groups") for path in (run / room).rglob("*.json") if path.parent.name != "child"
    ]
    before = {path: path.read_bytes() for path in kept}
    with monkeypatch.context() as patch:
        patch.setattr(saebench.train, "train_pass", failing)
        said: list[str] = []
        result = run_suite(suite, out=run, say=said.append)
    assert result.exit_status == 4
    assert sorted(result.statuses.values()) == ["failed", *["ok"] * 6, "skipped"]
    assert "topk default s0: what was damaged could not be made again; its record is kept" in said
    assert {path: path.read_bytes() for path in before} == before
    again(suite, run)  # and the next run tries again, also the child
    as_before(whole, run)


@pytest.mark.parametrize("name", ["sae.safetensors", "sae.json"])
def test_a_folder_and_a_pipe_in_a_files_place_are_damage(suite: Path, whole: Path, run: Path, name: str) -> None:
    import os

    one, two = (path / name for path in sorted((run / "checkpoints").iterdir())[:2])
    one.unlink()
    one.mkdir()
    two.unlink()
    os.mkfifo(two)
    said = again(suite, run)
    assert f"{one}: damaged (a folder has the name of a file). The cell is trained again" in said
    assert f"{two}: damaged (a named pipe has the name of a file). The cell is trained again" in said
    as_before(whole, run)


def test_a_damaged_checkpoint_says_what_to_do_and_that_works(suite: Path, whole: Path, run: Path) -> None:
    from saebench.api import SuiteError

    folder = run / "checkpoints" / cell_of(run, "topk")[1]
    flip(folder / "sae.safetensors", [])
    with pytest.raises(SuiteError, match=r"damaged .* Run the suite again into this folder") as caught:
        load_sae(folder)
    assert "\n" not in str(caught.value)
    again(suite, run)
    load_sae(folder)


def test_every_file_flipped_at_once_is_made_again(suite: Path, whole: Path, run: Path) -> None:
    for path in [path for path in run.rglob("*") if path.is_file() and path.stat().st_size and path.name != ".lock"]:
        flip(path, [])
    said = again(suite, run)
    # of a cell whose record is damaged it is not known what its arrays should be
    kinds = [PRODUCTS[name] for name in ("record", "group", "meta", "plan")]
    broken = [path for kind in kinds for path in files(run, kind)]
    assert [path for path in broken if not any(line.startswith(f"{path}: damaged") for line in said)] == []
    as_before(whole, run)


def other_run(suite: Path, folder: Path) -> Path:
    """The run of another suite, with no cell in common."""
    text = suite.read_text().replace("name: damage", "name: other").replace("k: 4", "k: 3")
    (folder / "other.yaml").write_text(text)
    assert run_suite(folder / "other.yaml", out=folder / "other").exit_status == 0
    return folder / "other"


def test_what_another_suite_left_is_never_taken_for_its_own(suite: Path, whole: Path, tmp_path: Path) -> None:
    other = other_run(suite, tmp_path)
    for name in ("records", "groups", "checkpoints", "arrays", "activations", "cache", "plan.json"):
        run = tmp_path / f"with {name}"
        shutil.copytree(whole, run)
        if name == "plan.json":
            shutil.copy(other / name, run / name)
        else:
            shutil.rmtree(run / name)
            shutil.copytree(other / name, run / name)
        said = again(suite, run)
        if name == "plan.json":
            assert any(line.startswith(f"{run / name}: was the plan of suite 'other'") for line in said), said
        mine = run / "records" / "damage", run / "groups" / "damage"
        for folder in mine:
            for path in folder.rglob("*.json"):
                assert facts_of(path) == facts_of(whole / path.relative_to(run)), path
        assert sum(len(list(folder.rglob("*.json"))) for folder in mine) == sum(
            len(list((whole / room / "damage").rglob("*.json"))) for room in ("records", "groups")
        )


def facts_of(path: Path) -> Any:
    import json

    return json.loads(path.read_text())["facts"]


def test_a_record_in_the_place_of_another_and_copies_of_it_change_nothing(suite: Path, whole: Path, run: Path) -> None:
    one, two = cell_of(run, "topk")[0], cell_of(run, "own")[0]
    shutil.copy(one, one.with_name("zz.json"))
    shutil.copy(one, two.with_name(one.name))
    swap(one, [two])
    said = again(suite, run)
    assert all(
        f"{path}: damaged (it is the record of another cell or score). The cell is scored again" in said
        for path in (one, two)
    )
    assert diff(whole, run) == []
