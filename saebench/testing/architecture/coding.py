"""Rules of encode and decode: codes are all that decode gets, and a token's codes are its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saebench.api.errors import describe
from saebench.testing.architecture.building import (
    draws_from_the_given_generator,
    everything_is_float32,
    is_an_sae,
    shapes,
)
from saebench.testing.architecture.case import FIRST, Case, example_activations
from saebench.testing.check import Rule, Skip

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.api import SparseCodes

BATCH_SIZES = (1, 7, 100, 4096)
ROUNDING = 1e-4
"""How far two ways of computing one code may be apart, beside its size: products of other shapes round in another
order."""
TIES = 3
"""Rows of 4,096 in which rounding may swap two latents that are almost equal (or almost at a threshold). With 32
latents about one row in a hundred thousand has such a pair."""
MATTERS = 0.01
"""Share of a reconstruction's variance that must change where its codes become another token's."""


def empty_batch(case: Case) -> None:
    """No row."""
    sae = case.ready()
    x_hat = sae.decode(case.codes(sae, case.x[:0]))
    assert x_hat.shape == (0, case.d_in), f"decode of no row gave {tuple(x_hat.shape)}, needed {(0, case.d_in)}"


def one_token(case: Case) -> None:
    """A batch of one row, in training and after."""
    import torch

    sae = case.ready()
    x_hat = sae.decode(case.codes(sae, case.x[:1]))
    assert x_hat.shape == (1, case.d_in), f"decode of one row gave {tuple(x_hat.shape)}, needed {(1, case.d_in)}"
    terms = case.build().training_loss(case.batch(slice(0, 1)), FIRST)
    assert bool(torch.isfinite(terms.reconstruction).all()), "the loss of one token is not finite"


def odd_rows(case: Case) -> None:
    """Zero, the decoder's bias, a constant, and a row ten thousand times as long."""
    import torch

    sae, trained = case.build(), case.ready()
    rows = {"zero": torch.zeros(case.d_in), "constant": torch.ones(case.d_in), "long": 1e4 * case.x[0]}
    for which, module in (("as it trains", sae), ("in its inference form", trained)):
        if isinstance(bias := getattr(module, "b_dec", None), torch.Tensor) and bias.shape == (case.d_in,):
            rows["equal to b_dec"] = bias.detach().clone()
        for name, row in rows.items():
            with torch.no_grad():
                x_hat = module.decode(case.codes(module, row[None]))
            assert torch.isfinite(x_hat).all(), f"the reconstruction of a row that is {name} is not finite {which}"
    if not any(parameter.requires_grad for parameter in sae.parameters()):
        return
    x = torch.stack([*rows.values(), *case.x[:4]])
    terms = sae.training_loss(replace(case.batch(), x=x, target=x), FIRST)
    loss = terms.reconstruction.mean() + sum(terms.penalties.values(), torch.zeros(()))
    loss.backward()
    for name, parameter in sae.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), (
            f"rows that are zero, constant, long or equal to b_dec make the gradient of {name} not finite"
        )


def not_finite_rows(case: Case) -> None:
    """One row of NaN: no finite latent fires, and no other row changes."""
    import torch

    from saebench.api import SparseCodes

    sae = case.ready()
    x = case.x[:8].clone()
    x[3] = torch.nan
    answer = sae.encode(x)
    dense = answer.to_dense() if isinstance(answer, SparseCodes) else answer
    others = torch.tensor([row for row in range(8) if row != 3])
    alone = case.codes(sae, case.x[:8][others]).to_dense()
    if "batch_coupled" not in case.spec.tags:
        assert torch.allclose(dense[others], alone, rtol=ROUNDING, atol=ROUNDING), (
            "a row of NaN changes the codes of other rows"
        )
    # that no latent fires is an answer too: NaN is above no threshold
    assert not (dense[3] != 0).any() or not torch.isfinite(dense[3]).all(), (
        "a row of NaN is encoded as if it were an activation"
    )


def inputs_stay(case: Case) -> None:
    """Neither x nor codes nor a batch is written to."""
    import torch

    sae = case.ready()
    x = case.x[:32].clone()
    codes = case.codes(sae, x)
    assert torch.equal(x, case.x[:32]), "encode writes to its x"
    parts = {name: getattr(codes, name).clone() for name in ("values", "latents", "offsets")}
    sae.decode(codes)
    for name, part in parts.items():
        assert torch.equal(part, getattr(codes, name)), f"decode writes to codes.{name}"
    sae, batch = case.build(), case.batch()
    sae.training_loss(batch, FIRST)
    assert torch.equal(batch.x.detach(), case.x[:64]), "training_loss writes to batch.x"


def buffers_stay(case: Case) -> None:
    """encode and decode change no parameter and no buffer, in training mode and after."""
    import torch

    for mode, sae in (("in training mode", case.build().train()), ("in inference form", case.ready())):
        before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
        with torch.no_grad():
            sae.decode(case.codes(sae, case.x[:32]))
        for name, tensor in sae.state_dict().items():
            assert torch.equal(before[name], tensor), f"encode or decode changes {name} {mode}"


def calls_are_forgotten(case: Case) -> None:
    """The codes of x are the same whatever was encoded before."""
    import torch

    sae = case.ready()
    first = case.codes(sae, case.x[:16]).to_dense()
    case.codes(sae, case.x[100:700])
    again = case.codes(sae, case.x[:16]).to_dense()
    assert torch.equal(first, again), "the codes of x differ after another batch was encoded"


def rows_are_independent(case: Case) -> None:
    """A token's codes in batches of 1, 7, 100 and 4,096."""
    import torch

    if "batch_coupled" in case.spec.tags:
        raise Skip("tagged batch_coupled")
    sae = case.ready()
    x = example_activations(BATCH_SIZES[-1], case.d_in, seed=1)
    made: dict[int, Tensor] = {}
    for size in BATCH_SIZES:
        rows = x[:112] if size == 1 else x
        made[size] = torch.cat([case.codes(sae, piece).to_dense() for piece in torch.split(rows, size)])
    for size, dense in made.items():
        reference = made[7][: len(dense)]
        apart = (dense - reference).abs() > ROUNDING * (1 + reference.abs())
        rows_apart = int(apart.any(1).sum())
        assert rows_apart <= (TIES if size > 1 else 0), (
            f"{rows_apart} of {len(dense)} tokens have other codes in a batch of {size} than in a batch of 7"
        )


def _other_codes(codes: SparseCodes) -> Iterator[tuple[str, SparseCodes]]:
    """The same side values beside other codes."""
    import torch

    moved = codes.select(torch.arange(codes.n_rows).roll(1))
    yield "the codes of another token", replace(moved, side=codes.side)
    yield "half of its codes", replace(codes, values=0.5 * codes.values)
    other = (codes.latents + 1) % codes.d_sae
    yield "other latents", replace(codes, latents=other)


def codes_are_all(case: Case) -> None:
    """decode reads codes alone: a module that has never seen x decodes them, and other codes give another x_hat."""
    import torch

    sae = case.ready()
    codes = case.codes(sae, case.x[:64])
    declared = set(case.spec.side)
    if undeclared := sorted(set(codes.side) - declared):
        raise AssertionError(f"encode leaves side value '{undeclared[0]}' for decode, which the spec does not declare")
    if not bool((codes.values != 0).any()):
        raise Skip("no latent fires")
    twin: Any = case.twin(sae)
    try:
        x_hat = twin.decode(codes)
    except Exception as error:
        raise AssertionError(
            f"a module of the same weights that has not seen x cannot decode its codes: {describe(error)}"
        ) from error
    spread = float((x_hat - x_hat.mean(0)).square().sum())
    for what, others in _other_codes(codes):
        if torch.equal(others.to_dense(), codes.to_dense()):
            continue
        moved = float((twin.decode(others) - x_hat).square().sum())
        assert moved > MATTERS * spread and moved > 0, f"decode gives the same x_hat for {what}"


RULES: tuple[Rule[Case], ...] = (
    Rule(
        "a batch of no rows is encoded and decoded",
        empty_batch,
        "Guard max(), mean() and reshape(-1) against zero rows, or return SparseCodes of no row.",
        (is_an_sae, shapes),
    ),
    Rule(
        "a batch of one row is encoded, decoded and has a loss",
        one_token,
        "Do not squeeze, and do not divide by a variance over the batch.",
        (is_an_sae, shapes),
    ),
    Rule(
        "rows that are zero, constant, long or equal to b_dec are finite",
        odd_rows,
        "Where you divide by a norm, add a small number under it (norm() has no gradient at zero).",
        (is_an_sae, shapes, one_token),
    ),
    Rule(
        "inputs are left as they are",
        inputs_stay,
        "Write `x = x - b`, not `x -= b`: the tensor is the harness's, and other contenders read it too.",
        (is_an_sae, shapes),
    ),
    Rule(
        "encode and decode change nothing in the module",
        buffers_stay,
        "Count in training_loss or after_step. encode is also called to look at an SAE.",
        (is_an_sae, shapes),
    ),
    Rule(
        "calls are forgotten",
        calls_are_forgotten,
        "encode is a function of x and the weights: keep nothing between two calls.",
        (is_an_sae, shapes, draws_from_the_given_generator, buffers_stay, inputs_stay),
    ),
    Rule(
        "a token's codes do not depend on its batch",
        rows_are_independent,
        "Use no statistic over the batch in the inference form: set a threshold in finalize. Where that is the method, "
        "tag it batch_coupled.",
        (is_an_sae, shapes, draws_from_the_given_generator, calls_are_forgotten, inputs_stay, everything_is_float32),
    ),
    Rule(
        "codes are all that decode reads",
        codes_are_all,
        "decode(codes) is a function of codes and weights. What it needs of a token beside them (a mean, a scale) is "
        "a declared side value, which counts in the price of a code.",
        (is_an_sae, shapes, draws_from_the_given_generator, calls_are_forgotten),
    ),
    Rule(
        "a row of NaN is seen, and changes no other row",
        not_finite_rows,
        "Do not replace what is not finite (nan_to_num): the harness refuses such data with its row.",
        (is_an_sae, shapes, odd_rows, codes_are_all),
    ),
)
