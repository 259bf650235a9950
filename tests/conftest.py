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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device`: see tests/on_device.py."""
    help = "where the unit tests of nn, train, score and matching run; cuda runs tests marked gpu too"
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda", "simulated"), help=help)


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """What a test hands to saebench as the device: `cpu`, or `cuda`, simulated or not."""
    return "cpu" if pytestconfig.getoption("--device") == "cpu" else "cuda"


@pytest.fixture(autouse=True)
def _on_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the tests of some rooms on the device that was asked for."""
    from on_device import in_rooms, on_device

    name = request.config.getoption("--device")
    if name == "cpu" or not in_rooms(request.path) or request.node.get_closest_marker("gpu"):
        yield
        return
    with on_device(name, request.module):
        yield


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
    from on_device import skip_reason

    asked, device = config.getoption("-m") or "", config.getoption("--device")
    for item in items:
        if (reason := skip_reason(item, device)) is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
    for name in ("slow", "gpu", "hub"):
        if name not in asked and not (name == "gpu" and device == "cuda"):
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(pytest.mark.skip(reason=f"{name}: run by hand with -m {name}"))
