"""What the plugin registers, and what it refuses before anything is built."""

from __future__ import annotations

import subprocess
import sys

import pytest

from saebench_plugins.core_datasets import plugin
from saebench_plugins.core_datasets.texts import presets


def test_six_datasets_with_torch_untouched():
    code = (
        "import sys; from saebench_plugins.core_datasets import plugin; specs = plugin.saebench_datasets();"
        "print([s.name for s in specs], 'torch' in sys.modules, 'datasets' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['docs', 'local', 'hub', 'subdomain', 'activations', 'synthetic'] False False"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (plugin.SubdomainOptions("docs", ()), "queries"),
        (plugin.SubdomainOptions("docs", ("!?",)), "queries"),
        (plugin.SubdomainOptions("docs", ("sockets",), top=1.5), "top"),
        (plugin.SubdomainOptions("docs", ("sockets",), top=0), "top"),
    ],
)
def test_subdomain_options_that_cannot_be(options, key):
    assert [problem.key for problem in plugin.check_subdomain(options)] == [key]


def test_subdomain_options_that_can_be():
    for top in (1, 500, 0.1, 1.0):
        assert not plugin.check_subdomain(plugin.SubdomainOptions("docs", ("sockets",), top=top))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"active": 20.0}, "active"),
        ({"correlation": 1.0}, "correlation"),
        ({"d_in": 0}, "d_in"),
        ({"noise": -1.0}, "noise"),
        ({"zipf": -0.5}, "zipf"),
    ],
)
def test_synthetic_options_that_cannot_be(changes, key):
    options = plugin.SyntheticOptions(**{"d_in": 8, "n_features": 32, **changes})
    assert [problem.key for problem in plugin.check_synthetic(options)] == [key]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (plugin.HubOptions(), "neither is set"),
        (plugin.HubOptions(id="a/b", preset="pile"), "both are set"),
        (plugin.HubOptions(preset="tinystory"), "Did you mean 'tinystories'"),
        (plugin.HubOptions(id="a/b", max_documents=0), "Use 1 or more"),
    ],
)
def test_hub_options_that_cannot_be(options, words):
    (problem,) = presets.problems(options)
    assert words in problem.message


def test_presets_resolve():
    from saebench_plugins.core_datasets.texts.presets import PRESETS, resolved

    assert set(PRESETS) == {"tinystories", "openwebtext", "pile", "fineweb", "lmsys-chat-1m"}
    assert resolved(plugin.HubOptions(preset="lmsys-chat-1m")).text_column == "conversation"
    assert resolved(plugin.HubOptions(preset="fineweb", config="sample-100BT")).config == "sample-100BT"
    assert presets.recipe(plugin.HubOptions(preset="pile", revision="abc")) == {
        "id": "monology/pile-uncopyrighted", "config": None, "text_column": "text", "revision": "abc",
    }  # fmt: skip
