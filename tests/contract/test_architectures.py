"""Every built-in architecture keeps the contract that a third party's is held to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench.api import Site
from saebench.api.specs import resolve
from saebench.host import load_catalog
from saebench.testing import check_architecture

CONFIGS: dict[str, dict[str, Any]] = {
    "topk": {"d_sae": 32, "k": 4},
    "jumprelu": {"d_sae": 32, "target_l0": 4},
    "expander": {"d_sae": 32, "degree": 4, "k": 4},
    "ssae": {},
    "batch-topk": {"d_sae": 32, "k": 4},
    "relu-l1": {"d_sae": 32},
    "external": {"d_sae": 32, "k": 4},
    "control-random": {"d_sae": 32, "k": 4},
    "control-permuted": {"d_sae": 32, "k": 4},
    "control-pca": {"d_sae": 32, "k": 4},
    "control-identity": {"d_sae": 16, "k": 16},
}
CATALOG = load_catalog()


def _base() -> torch.nn.Module:
    spec = CATALOG.architecture("topk").spec
    generator = torch.Generator().manual_seed(7)
    module: torch.nn.Module = resolve(spec.build)(spec.config(d_sae=32, k=4), site=Site(16, 16), generator=generator)
    return module


def test_every_built_in_architecture_is_checked() -> None:
    assert set(CONFIGS) == set(CATALOG.architectures)


@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name: str) -> None:
    spec = CATALOG.architecture(name).spec
    base, other = _base if spec.wraps else None, name == "topk"
    checks = check_architecture(spec, spec.config(**CONFIGS[name]), base=base, other_process=other)
    assert not [f"{check.name}: {check.message}" for check in checks if check.failed]
    assert sum(check.status == "pass" for check in checks) >= 5
