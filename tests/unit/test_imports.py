from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["schema"],
        ["status", "nowhere"],
        ["leaderboard", "nowhere"],
        ["diff", "nowhere", "nowhere"],
    ],
    ids=" ".join,
)
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom saebench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print('heavy:', [name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1] == "heavy: []", result.stderr


def test_the_package_imports_no_torch_and_knows_its_names() -> None:
    code = (
        "import sys, saebench; assert 'torch' not in sys.modules; saebench.run; saebench.load_sae; assert 'run' "
        "in dir(saebench)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
