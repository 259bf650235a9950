"""Cost formulas and config checks for `plugin.py` files. Loads no torch.

FLOPs count a multiply-add as two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saebench.api.specs import Cost, Problem, Site

ADAM_FLOPS = 12
"""Per parameter: two moments, bias corrections folded, square root, division, update."""
CLIP_FLOPS = 3
"""Per parameter: square, add, scale."""


def block_tokens(d_sae: int) -> int:
    """Tokens whose pre-activations exist at once: a power of two from 256 to 2048, for about 12 million of them."""
    return 1 << min(11, max(8, (12_582_912 // max(1, d_sae)).bit_length() - 1))


LEAST_PADDED, SIZES_PER_OCTAVE = 16, 8
"""The smallest size that dead latents are padded to, and how many sizes lie between one and its double."""


def padded_size(n: int) -> int:
    """`n`, at least 1, rounded up to one of few sizes: to 16, or by an eighth at most."""
    step = max(1, (1 << (n - 1).bit_length()) // (2 * SIZES_PER_OCTAVE))
    return max(LEAST_PADDED, -(-n // step) * step)


def padded_sizes(n: int) -> int:
    """How many sizes `padded_size` has up to `n`, about."""
    return 1 + SIZES_PER_OCTAVE * max(0, n.bit_length() - LEAST_PADDED.bit_length())


PRE_ACT_BYTES = 5
"""A float32 pre-activation and its place in the mask."""
KEPT_BYTES = 1 << 26
"""Freed memory that the allocator of glibc keeps, at most: it hands pieces of 32 MB and more back at once. A step was
seen to leave two copies of a gradient there (512 to 8,192 and 768 to 24,576 at batch 2,048 and 4,096)."""
UNIT_ROW_FLOPS = 9
"""Per value under `UnitRows`: project the gradient (4), norm (2), scale (1), and the norm of the projection (2)."""


def linear_cost(
    d_in: int,
    d_sae: int,
    *,
    expected_l0: float | None,
    n_parameters: int | None = None,
    buffer_bytes: int = 4,
    encoder_width: int | None = None,
    unit_rows: bool = True,
    blocked: bool = True,
) -> Cost:
    """Cost of an SAE with a linear encoder and decoder whose backward pass touches active latents alone.

    Forward: the encoder product, `2 d_in` for each latent of each token. For each active latent: decode, its value
    gradient and the two weight gradients, `2 d_in` each. Once a step: the encoder's part of b_dec's gradient, and the
    optimiser. Looking at candidates a second time and AuxK are not in here: the first is no work the algorithm needs,
    the second a step reports itself.

    Args:
        n_parameters: Default: two matrices and two biases.
        buffer_bytes: State beyond the parameters.
        encoder_width: Inputs that a latent reads; default `d_in`.
        unit_rows: Whether `[d_sae, d_in]` decoder rows are constrained.
        blocked: Whether pre-activations exist for a block of tokens at a time only (True), or for the whole batch.
    """
    width = d_in if encoder_width is None else encoder_width
    parameters = 2 * d_in * d_sae + d_in + d_sae if n_parameters is None else n_parameters
    encode = 2 * width * d_sae + d_sae + d_in
    active = int(expected_l0 if expected_l0 is not None else d_sae / 4)
    pre_acts = PRE_ACT_BYTES * d_sae
    return Cost(
        n_parameters=parameters,
        stored_bytes=4 * parameters + buffer_bytes,
        train_flops_per_token=encode + 8 * d_in,
        train_flops_per_active=4 * 2 * width,
        step_flops=(ADAM_FLOPS + CLIP_FLOPS) * parameters
        + 2 * width * d_sae
        + (UNIT_ROW_FLOPS * d_in * d_sae if unit_rows else 0),
        encode_flops_per_token=encode,
        # Input, centred input, reconstruction, residual, and the input rounded to bfloat16; value, latent, row and
        # gradient of each active entry, in two orders.
        workspace_bytes_per_token=26 * d_in + 64 * active + (0 if blocked else pre_acts),
        # A block's pre-activations and the mask over them; the encoder rounded to bfloat16; what is freed and kept.
        workspace_bytes=(block_tokens(d_sae) * pre_acts if blocked else 0)
        + 2 * width * d_sae
        + min(KEPT_BYTES, 8 * width * d_sae),
        expected_l0=expected_l0,
    )


def dense_cost(
    d_in: int, d_sae: int, *, n_parameters: int, stored_bytes: int, expected_l0: float | None = None
) -> Cost:
    """Cost of an SAE whose training step is dense: encoder, decoder and their backward products, six in all."""
    product = 2 * d_in * d_sae
    return Cost(
        n_parameters=n_parameters,
        stored_bytes=stored_bytes,
        train_flops_per_token=6 * product,
        train_flops_per_active=0,
        step_flops=(ADAM_FLOPS + CLIP_FLOPS) * n_parameters,
        encode_flops_per_token=product,
        # input, centred input, reconstruction, residual; pre-activations and codes, each with its gradient
        workspace_bytes_per_token=24 * d_in + 16 * d_sae,
        expected_l0=expected_l0,
    )


def one_place(site: Site) -> Iterator[Problem]:
    """An SAE reads and writes one place."""
    if site.d_in != site.d_out:
        yield Problem(
            "architecture",
            f"reads {site.d_in} and writes {site.d_out} values. An SAE needs one place; use a hookpoint that is read "
            "and written.",
        )


def at_least(config: Any, minimum: int, *keys: str) -> Iterator[Problem]:
    """Integers that must not lie below `minimum`."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and value < minimum:
            yield Problem(key, f"got {value}. Use {minimum} or more.")


def positive(config: Any, *keys: str) -> Iterator[Problem]:
    """Numbers that must be above zero (None passes)."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value > 0:
            yield Problem(key, f"got {value}. Use a number above 0.")


def not_negative(config: Any, *keys: str) -> Iterator[Problem]:
    """Numbers that must not be below zero (None passes)."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value >= 0:
            yield Problem(key, f"got {value}. Use 0 or more.")


def fraction(config: Any, *keys: str) -> Iterator[Problem]:
    """Numbers in (0, 1] (None passes)."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not 0 < value <= 1:
            yield Problem(key, f"got {value}. Use a fraction above 0, at most 1.")


def k_fits(config: Any, key: str = "k") -> Iterator[Problem]:
    """1 <= k <= d_sae."""
    k, d_sae = getattr(config, key), config.d_sae
    if k < 1:
        yield Problem(key, f"got {k}. Use 1 or more.")
    elif d_sae >= 1 and k > d_sae:
        yield Problem(key, f"got {k} but d_sae is {d_sae}. Use {key} <= d_sae.")
