"""Children beside their parents trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.children import children

HIGH = TableColumn("explained", "explained", "reconstruction", direction="higher", ranks=True)
LOW = TableColumn("loss", "loss", "reconstruction", direction="lower", ranks=True)
COLUMNS = (HIGH, LOW, TableColumn("cost:train", "training", "tokens"))


def row(label: str, parents: str, values: dict[int, float], *, tokens: float = 100.0, **more: Any) -> Any:
    metric = SimpleNamespace(seeds={str(seed): value for seed, value in values.items()})
    mean = sum(values.values()) / len(values)
    told: dict[str, Any] = {"control": False, "continued": False, "train": {"lr": 1}, "price": 8.0, "copies": ()}
    told |= {"unranked": None, "seeds": tuple(values), "planned_seeds": tuple(values), **more}
    return SimpleNamespace(
        id=f"row-{label}", label=label, cost={"train_tokens": tokens}, metrics={"explained": metric, "loss": metric},
        cells=tuple(SimpleNamespace(parent=f"{parents}{seed}" if parents else None) for seed in values),
        value=lambda id: mean, **told,
    )  # fmt: skip


def control(label: str, parents: str, values: dict[int, float], **more: Any) -> Any:
    return row(label, parents, values, control=True, continued=True, **more)


def test_a_child_stands_beside_its_parent_trained_on() -> None:
    child = row("child", "p", {0: 0.70, 1: 0.71, 2: 0.72})
    after = control("p-continued", "p", {0: 0.80, 1: 0.81, 2: 0.825})
    (found,) = children([row("p", "", {0: 0.5}), child, after, control("q-continued", "q", {0: 0.9})], COLUMNS)
    assert (found.label, found.control, found.control_row) == ("child", "p-continued", "row-p-continued")
    by_id = {metric.id: metric for metric in found.metrics}
    assert by_id.keys() == {"explained", "loss"}
    assert abs(by_id["explained"].difference + 0.305 / 3) < 1e-12
    assert 0 < (by_id["explained"].resolvable or 0) < 0.1
    assert by_id["explained"].verdict == "worse"
    assert by_id["loss"].verdict == "better"


def verdicts(child: Any, after: Any) -> list[str]:
    (found,) = children([child, after], COLUMNS)
    return [metric.verdict for metric in found.metrics]


def test_what_seeds_cannot_tell_is_said() -> None:
    wide = {0: 0.7, 1: 0.9}
    assert verdicts(row("c", "p", wide), control("k", "p", {0: 0.75, 1: 0.8})) == ["tie"] * 2
    one = verdicts(row("c", "p", {0: 0.7}), control("k", "p", {0: 0.75}))
    assert one == ["cannot tell: child: one seed; control: one seed"] * 2
    lost = verdicts(row("c", "p", wide, planned_seeds=(0, 1, 2)), control("k", "p", wide))
    assert lost == ["cannot tell: child: 2 of 3 seeds"] * 2
    dense = verdicts(row("c", "p", wide, price=9.0), control("k", "p", wide))
    assert dense == ["cannot tell: child: a code has 9 values here and 8 there"] * 2
    copied = verdicts(row("c", "p", wide, copies=(1,)), control("k", "p", wide))
    assert copied == ["cannot tell: child: one seed"] * 2


def test_the_control_of_equal_spend_and_settings_is_taken() -> None:
    child = row("c", "p", {0: 0.7}, tokens=100)
    found = children(
        [
            child,
            control("short", "p", {0: 0.7}, tokens=50),
            control("other", "p", {0: 0.7}, train={"lr": 2}),
            control("mine", "p", {0: 0.7}),
            row("permuted", "p", {0: 0.7}, control=True),
        ],
        COLUMNS,
    )
    assert [one.control for one in found] == ["mine"]
    assert children([child, row("permuted", "p", {0: 0.7}, control=True)], COLUMNS) == ()
