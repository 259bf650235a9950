from __future__ import annotations

import pytest

from saebench.api import Column, MetricInfo
from saebench.execute.records import without_columns
from saebench.score.combine import info_json


def test_a_metric_that_ranks_has_a_column_and_a_direction() -> None:
    for direction, column in (("neutral", Column("mine")), ("lower", None)):
        with pytest.raises(ValueError, match="a metric that ranks has a column, and is better lower or higher"):
            MetricInfo("mine", "ratio", direction, "cost", "mine", column=column, ranks=True)
    with pytest.raises(ValueError, match="a Column has a name"):
        Column("")


def test_columns_are_no_facts() -> None:
    column = Column("mine", decimals=1)
    given = [
        MetricInfo("mine", "ratio", "lower", "cost", "mine", column=column, ranks=True),
        MetricInfo("other", "ratio", "lower", "cost", "x"),
    ]
    infos, columns = without_columns(info_json(given))
    assert set(infos["mine"]) == {"family", "description", "unit", "direction", "measured"}
    assert columns == {"mine": {"name": "mine", "decimals": 1, "ranks": True}}
