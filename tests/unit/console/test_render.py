from __future__ import annotations

import itertools

import pytest
from tqdm.utils import disp_len

from saebench.console.render import PhaseView, View, bar_line, log_line, shorten, terminal_lines

LONG = "entry-with-a-name-that-nobody-wants-to-read-to-its-very-end-but-somebody-gave-it"


def view(
    *, name: str = "topk k8 s0", total: float | None = 1e6, share: float | None = 0.25, elapsed: float = 65.0
) -> View:
    phase = PhaseView("training", name, 4.5e5, total, "tok", 12.0, 15.0, f"{name}: fvu 0.312 l0 16.0")
    return View("quickstart", (12, 54), share, elapsed, 260.0 if share is not None else None, phase)


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("name", ["topk k8 s0", LONG, "表" * 60, "e" * 2000])
@pytest.mark.parametrize("elapsed", [65.0, 400_000.0])
def test_brackets_and_the_time_left_are_whole_however_narrow(columns: int, name: str, elapsed: float) -> None:
    outer, inner = terminal_lines(view(name=name, elapsed=elapsed), columns - 1, ascii=False)
    for line in (outer, inner):
        assert disp_len(line) <= columns - 1
        assert line.count("|") == 2
        assert line.endswith("]")
        assert line.count("[") == 1
        assert "%|" in line
    assert outer.endswith("<04:20]")
    assert inner.endswith("[00:12<00:15]")
    assert inner.startswith("training ")
    assert " 25%|" in outer
    assert " 45%|" in inner


def test_names_are_shortened_with_a_mark() -> None:
    _, inner = terminal_lines(view(name=LONG), 79, ascii=False)
    assert "…" in inner.split("%|")[0]
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcdef", 4, ascii=True) == "abc~"
    assert shorten("abcd", 4) == "abcd"
    assert shorten("表表表", 5) == "表表…"


def test_a_phase_that_nobody_can_count_shows_its_time() -> None:
    (line,) = terminal_lines(view(total=None, share=None), 79, ascii=False)
    assert line == "training topk k8 s0 topk k8 s0: fvu 0.312 l0 16.0 450k tok [00:12]"


def test_the_bar_fills() -> None:
    shares = [bar_line("x", share, [], "00:01", 60, True).split("|")[1].count("#") for share in (0.0, 0.5, 1.0)]
    assert shares == [0, 15, 30]


def test_a_line_of_a_log_tells_the_same() -> None:
    assert log_line(view()) == (
        "[01:05] 12/54 cells, 25%, 04:20 left; training topk k8 s0: 45%, 450k/1.00M tok, topk k8 s0: fvu 0.312 l0 "
        "16.0, for 00:12"
    )
    assert log_line(view(share=None, total=None)).startswith("[01:05] 12/54 cells; training topk k8 s0: 450k tok, ")


def test_no_width_makes_a_line_longer_than_itself() -> None:
    for width, name in itertools.product(range(34, 120), ("t", LONG)):
        assert all(disp_len(line) <= width for line in terminal_lines(view(name=name), width, ascii=True))


def test_a_line_of_a_log_is_never_bare() -> None:
    assert log_line(View("", None, None, 9.0, None, None)) == "[00:09] working"
