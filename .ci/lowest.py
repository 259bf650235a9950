"""Prints the lowest versions that pyproject.toml allows of what the package and its tests need, one a line."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
    print(requirement.split(",")[0].replace(">=", "=="))
