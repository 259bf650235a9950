"""Ways round scoring: what decode gets beside codes, and codes that are others where nobody looks."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        ("x_in_side", "undeclared side value 'x' [1024, 32]"),
        ("index_in_side", "undeclared side value 'index'"),
        ("index_declared", "they are no quantities, but point at something"),
        ("x_in_class", "are reconstructed otherwise from the same codes"),
        ("x_looked_up", "it reads digits, or looks codes up"),
        ("denser_by_batch", "codes depend on the batch"),
        ("denser_on_losses", "codes depend on the batch"),
        ("denser_by_call", "on stream loss and"),
        ("two_in_a_double", "it reads digits, or looks codes up"),
        ("two_in_a_float", "it reads digits, or looks codes up"),
        ("twice_a_latent", "a latent twice for one token"),
        ("forged_directions", "decoder_directions are not what decode writes"),
    ],
)
def test_is_caught_by_name(attack: Any, plugin: str, says: str) -> None:
    found = attack(plugin)
    assert set(found.statuses.values()) == {"failed"}
    assert says in found.error
    assert found.facts["metrics"] == {}
    assert found.facts["training"] is not None  # what is known of it stays


@pytest.mark.parametrize(
    "plugin",
    ["x_cached", "x_in_subclass"],
)
def test_gains_nothing(attack: Any, plugin: str) -> None:
    """Scored as the honest one is, or worse."""
    found, honest = attack(plugin), attack("honest_topk")
    assert set(found.statuses.values()) == {"ok"}, found.error
    assert found.value("variance-explained") <= honest.value("variance-explained") + 1e-4
    assert found.value("ce-spliced") >= honest.value("ce-spliced") - 1e-4
    assert found.value("l0") == pytest.approx(honest.value("l0"))


def test_an_order_that_tells_decode_ends_where_codes_are_sorted(attack: Any) -> None:
    """The order of a token's entries is its own alone; decode gets them sorted, and what it makes of that diverges."""
    assert set(attack("order_tells").statuses.values()) == {"diverged"}


def test_a_module_that_writes_over_its_batch_is_caught_in_training(attack: Any) -> None:
    found = attack("x_overwritten")
    assert set(found.statuses.values()) == {"failed"}
    assert "the module changed the batch it was given" in found.error


def test_codes_are_counted_as_decode_got_them(attack: Any) -> None:
    assert attack("codes_overwritten").value("l0") > 4


def test_what_is_declared_is_allowed_and_priced(attack: Any) -> None:
    plain, cheat = attack("mean_and_scale"), attack("x_declared")
    for found, n in ((plain, 2), (cheat, 32)):
        assert set(found.statuses.values()) == {"ok"}, found.error
        assert found.value("values-per-token") == pytest.approx(found.value("l0") + n)
    assert plain.facts["details"]["decode_linear"] is True
    assert cheat.facts["details"]["decode_linear"] is True  # in the codes: it does not read them


def test_a_decoder_that_is_not_linear_is_scored_and_marked(attack: Any) -> None:
    found = attack("bent_decoder")
    assert set(found.statuses.values()) == {"ok"}, found.error
    assert found.facts["details"]["decode_linear"] is False


def test_codes_that_the_tag_says_are_coupled_are_scored_and_marked(attack: Any) -> None:
    found = attack("batch_mean")
    assert set(found.statuses.values()) == {"ok"}, found.error
    assert found.facts["batch_coupled"] is True
    assert "codes depend on the batch" in found.facts["details"]["batch_coupled"]


def test_the_honest_one_has_an_l0_of_every_stream(attack: Any) -> None:
    details = attack("honest_topk").facts["details"]
    assert details["l0_streams"].keys() == {"eval", "density", "loss"}
    assert all(0 < l0 <= 4 for l0 in details["l0_streams"].values())
    assert details["decode_linear"] is True
    assert "batch_coupled" not in details
