from __future__ import annotations

import pytest

from saebench.api.errors import Escaped, contained, describe, recorded, said


class Stop(BaseException):
    """What a plugin may invent to get out of everything."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(9)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemExit("out of here"), "SystemExit: out of here"),
        (SystemExit(), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
        (Stop("now"), "Stop: now"),
    ],
)
def test_what_would_end_the_process_becomes_an_exception_that_names_it(error: BaseException, line: str) -> None:
    with pytest.raises(Escaped) as caught, contained():
        raise error
    assert describe(caught.value) == line
    assert recorded(caught.value)["type"] == type(error).__name__
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError()])
def test_ordinary_exceptions_and_ctrl_c_go_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, contained():
        raise error
    assert caught.value is error


def test_an_exception_whose_text_ends_the_process_is_described() -> None:
    assert said(Unprintable()) == "Unprintable (its text cannot be shown: SystemExit)"
