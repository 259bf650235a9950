"""`build`: evidence -> board -> data.json, chart.svg, README.md, index.html. Nothing else is read, nothing else is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saebench.artifacts import write_json, write_text
from saebench.leaderboard.board import make_board
from saebench.leaderboard.charts import chart_svg
from saebench.leaderboard.evidence import read_evidence
from saebench.leaderboard.page import page_html
from saebench.leaderboard.readme import readme_markdown


def build(folders: Sequence[Path], out: Path) -> Path:
    """Writes the leaderboard of the records in `folders` into `out`; records are only read, also where `out` holds them.

    Equal records and versions give equal bytes, in whatever order and wherever the folders stand.

    Args:
        folders: Folders that hold records/ (and groups/).
        out: Where index.html, README.md, data.json and chart.svg go; made if it is not there.

    Returns:
        The folder `out`.

    Raises:
        SuiteError: No records, a damaged record, or an unknown schema version.
        MachineError: `out` cannot be written.
    """
    out = Path(out)
    board = make_board(read_evidence([Path(folder) for folder in folders]))
    svg = chart_svg(board)
    # Everything is made before anything is written, so that an error leaves the old pages whole.
    readme, page = readme_markdown(board, has_chart=svg is not None), page_html(board)
    if svg is not None:
        write_text(out / "chart.svg", svg)
    else:
        (out / "chart.svg").unlink(missing_ok=True)
    write_json(out / "data.json", board)
    write_text(out / "README.md", readme)
    write_text(out / "index.html", page)
    return out
