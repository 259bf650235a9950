"""Mappings to frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from saebench.api import PluginError, SuiteError
from saebench.config import as_json, parse_options
from saebench.config.options import options_schema


@dataclass(frozen=True)
class Options:
    d_sae: int
    k: int = 8
    rate: float = 1.0
    mode: Literal["fast", "exact"] = "fast"
    flag: bool = False
    target: float | None = None
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    size: int | Literal["auto"] = "auto"
    path: Path | None = None
    either: int | float = 1
    extra: Annotated[Any, "whatever"] = None


def parse(values, cls=Options):
    return parse_options(cls, values, lambda key: f"s.yaml:{3 if key else 2}", "entries[0].config")


def test_values_take_the_types_of_their_fields():
    options = parse(
        {
            "d_sae": 1e3,
            "rate": 3,
            "names": ["a", "b"],
            "pair": [4, 5],
            "target": 2,
            "size": 7,
            "path": "x/y",
            "either": 3,
            "extra": [{}],
        }
    )
    assert options == Options(
        1000, rate=3.0, names=("a", "b"), pair=(4, 5.0), target=2.0, size=7, path=Path("x/y"), either=3, extra=[{}]
    )
    assert [
        type(value) for value in (options.d_sae, options.rate, options.pair[1], options.target, options.either)
    ] == [int, float, float, float, int]


def test_json_form_has_every_field_and_comes_back():
    options = parse({"d_sae": 4, "names": ["a"], "path": "x/y"})
    plain = as_json(options)
    assert plain["names"] == ["a"]
    assert plain["path"] == "x/y"
    assert plain["k"] == 8
    assert parse(plain) == options


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"d_sae": "4"}, "s.yaml:3 entries[0].config.d_sae: got '4' but a whole number is expected."),
        ({"d_sae": 4.5}, "s.yaml:3 entries[0].config.d_sae: got 4.5 but a whole number is expected."),
        ({"d_sae": True}, "s.yaml:3 entries[0].config.d_sae: got true but a whole number is expected."),
        ({"d_sae": 4, "rate": float("nan")}, "s.yaml:3 entries[0].config.rate: got nan but a number is expected."),
        ({"d_sae": 4, "flag": 1}, "s.yaml:3 entries[0].config.flag: got 1 but true or false is expected."),
        ({"d_sae": 4, "k": None}, "s.yaml:3 entries[0].config.k: got nothing but a whole number is expected."),
        (
            {"d_sae": 4, "names": "a"},
            "s.yaml:3 entries[0].config.names: got 'a' but a list of text is expected. Write ['a'].",
        ),
        (
            {"d_sae": 4, "pair": [1]},
            "s.yaml:3 entries[0].config.pair: got [1] but a list of 2 (a whole number, a number) is expected.",
        ),
        (
            {"d_sae": 4, "mode": "exakt"},
            "s.yaml:3 entries[0].config.mode: got 'exakt' but one of 'fast', 'exact' is expected. Did you mean "
            "'exact'?",
        ),
        (
            {"d_sae": 4, "size": "aut"},
            "s.yaml:3 entries[0].config.size: got 'aut' but a whole number or 'auto' is expected. Did you mean 'auto'?",
        ),
        (
            {"d_sae": 4, "target": "x"},
            "s.yaml:3 entries[0].config.target: got 'x' but a number or nothing (null) is expected.",
        ),
        ({}, "s.yaml:3 entries[0].config.d_sae: is missing. Add `d_sae:` with a whole number."),
    ],
)
def test_a_wrong_value_says_what_was_found_and_what_is_allowed(values, line):
    with pytest.raises(SuiteError) as caught:
        parse(values)
    assert str(caught.value) == line


def test_all_problems_are_collected():
    with pytest.raises(SuiteError) as caught:
        parse({"k": "x", "d-sae": 4})
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "config.d-sae: unknown key. Did you mean 'd_sae'? Allowed: d_sae, k, rate" in lines[1]


def test_a_refusal_of_the_dataclass_itself_is_told():
    @dataclass(frozen=True)
    class Picky:
        k: int = 1

        def __post_init__(self):
            if self.k > 4:
                raise ValueError(f"k is {self.k} but at most 4 works")

    with pytest.raises(SuiteError, match=r"s.yaml:2 entries\[0\].config: k is 9 but at most 4 works"):
        parse({"k": 9}, Picky)


def test_a_config_that_is_no_dataclass_is_the_plugins_fault():
    with pytest.raises(PluginError, match="must be a frozen dataclass"):
        parse({}, dict)


def test_schema_names_types_and_defaults():
    schema = options_schema(Options)
    assert schema["required"] == ["d_sae"]
    assert schema["properties"]["mode"] == {"enum": ["fast", "exact"], "default": "fast"}
    assert schema["properties"]["target"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert schema["additionalProperties"] is False
