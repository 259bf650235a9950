"""Shared fixtures: the network is blocked, material is found or skipped with a reason."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# hubs must never be asked, not even by an import; set before transformers or datasets are loaded
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# a shell starts what it puts into the background deaf to signals, and children inherit that; their tests send some
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

sys.path.insert(0, str(Path(__file__).parent))  # `simulated_device`; importlib mode puts no test folder on the path

MATERIAL = os.environ.get("SAEBENCH_MATERIAL")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any connection to another machine fails loudly; tests marked `hub` are let through."""
    if request.node.get_closest_marker("hub"):
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0] if isinstance(address, tuple) else address
            if host not in ("127.0.0.1", "::1", "localhost"):
                raise RuntimeError(f"the network is blocked in tests: {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept in the user's cache folder (nulls, machine profiles) goes to a folder of this session's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def material() -> Path:
    """The folder of real models and corpora; skips where SAEBENCH_MATERIAL is unset."""
    if not MATERIAL or not Path(MATERIAL).is_dir():
        pytest.skip("SAEBENCH_MATERIAL is unset: no real models and corpora here")
    return Path(MATERIAL).resolve()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow, GPU and hub cases run only when asked for by marker."""
    asked = config.getoption("-m") or ""
    for name in ("slow", "gpu", "hub"):
        if name not in asked:
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(pytest.mark.skip(reason=f"{name}: run by hand with -m {name}"))
