"""A gradient that is wrong anywhere fails the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from saebench.api import Site
from saebench.api.specs import resolve
from saebench.host import load_catalog
from saebench.nn.kernels import backends
from saebench.testing import check_architecture, example_activations
from saebench.testing.gradients import check_gradients

NAME = "gradients by hand are those of the loss"
X = example_activations(200, 16)
CATALOG = load_catalog()


def sae(name: str = "topk", **more: Any) -> Any:
    spec = CATALOG.architecture(name).spec
    config = spec.config(d_sae=32, **({"k": 4} if name == "topk" else {"target_l0": 4}), **more)
    module = resolve(spec.build)(config, site=Site(16, 16), generator=torch.Generator().manual_seed(0))
    module.init_from_data(X, torch.Generator().manual_seed(1))
    return module


def broken(change: Callable[[Any, Any, Any], Any], name: str = "topk") -> Callable[[], Any]:
    """Builds a module whose `loss_and_grad` does `change(module, terms, token_weights)` on top."""

    def build() -> Any:
        module = sae(name)
        right = module.loss_and_grad

        def wrong(batch: Any, step: Any, token_weights: Any = None) -> Any:
            terms = right(batch, step, token_weights)
            return change(module, terms, token_weights) or terms

        module.loss_and_grad = wrong
        return module

    return build


def add_once_more(module: Any, terms: Any, weights: Any) -> None:
    module.W_enc.grad.add_(1.0)


def forget(module: Any, terms: Any, weights: Any) -> None:
    module.b_dec.grad = None


def ignore_weights(module: Any, terms: Any, weights: Any) -> None:
    if weights is not None:
        module.b_enc.grad.mul_(1.0 + 1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda *_: None, None),
        (lambda module, terms, weights: replace(terms, penalties={}), "gives penalties"),
        (
            lambda module, terms, weights: replace(terms, reconstruction=terms.reconstruction * 1.01),
            "another reconstruction",
        ),
        (
            lambda module, terms, weights: replace(terms, penalties={"aux": terms.penalties["aux"] + 1}),
            "another penalty 'aux'",
        ),
        (
            lambda module, terms, weights: replace(terms, reconstruction=terms.reconstruction.requires_grad_()),
            "detached",
        ),
        (lambda module, terms, weights: 7, "must return LossTerms, got int"),
        (add_once_more, r"W_enc.grad of loss_and_grad is .* away"),
        (forget, "left b_dec.grad empty"),
        (ignore_weights, r"b_enc.grad .* with token weights"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Any, Any, Any], Any], words: str | None) -> None:
    if words is None:
        check_gradients(broken(change), X)
    else:
        with pytest.raises(AssertionError, match=words):
            check_gradients(broken(change), X)


@pytest.mark.parametrize("parameter", ["W_enc", "b_enc", "W_dec", "b_dec", "theta"])
def test_a_millionth_too_much_of_any_gradient_is_seen(parameter: str) -> None:
    def change(module: Any, terms: Any, weights: Any) -> None:
        module.get_parameter(parameter).grad.mul_(1 + 1e-6)

    with pytest.raises(AssertionError, match=parameter):
        check_gradients(broken(change, "jumprelu"), X)


def test_what_only_dead_latents_get_is_checked_too() -> None:
    def build() -> Any:
        module = sae()
        module.k_aux, right = 8, module.loss_and_grad

        def other_count(*arguments: Any) -> Any:
            module.k_aux = 7
            terms = right(*arguments)
            module.k_aux = 8
            return terms

        module.loss_and_grad = other_count
        return module

    with pytest.raises(AssertionError, match="step 1"):
        check_gradients(build, X)


def test_what_goes_wrong_only_where_it_trains_is_seen() -> None:
    def change(module: Any, terms: Any, weights: Any) -> None:
        if module.W_enc.dtype == torch.float32 and backends.current() == "bf16-screen":
            module.W_enc.grad.mul_(1.1)

    with backends.force("bf16-screen"), pytest.raises(AssertionError, match=r"W_enc.* on back end bf16-screen"):
        check_gradients(broken(change), X)


def test_a_module_that_stays_float32_is_checked_in_float32() -> None:
    def build() -> Any:
        module = sae()
        module.to = lambda dtype: module  # cannot be cast
        return module

    check_gradients(build, X)

    def too_much(module: Any, terms: Any, weights: Any) -> None:
        module.W_dec.grad.mul_(1.1)

    def wrong() -> Any:
        module = broken(too_much)()
        module.to = lambda dtype: module
        return module

    with pytest.raises(AssertionError, match=r"in torch.float32"):
        check_gradients(wrong, X)


def test_the_contract_runs_it_and_skips_where_there_is_nothing_to_check() -> None:
    spec = CATALOG.architecture("topk").spec
    found = {check.name: check for check in check_architecture(spec, spec.config(d_sae=32, k=4))}
    assert found[NAME].status == "pass"
    control = CATALOG.architecture("control-random").spec
    found = {check.name: check for check in check_architecture(control, control.config(d_sae=32, k=4))}
    assert found[NAME].status == "skip"
