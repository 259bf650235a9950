"""Whether codes are all that a reconstruction comes from: a sample of every stream is encoded and decoded again.

It is tried when all streams were read. What is compared with is what was scored: honesty towards a probe gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from saebench.api import PluginError, SparseCodes
from saebench.base.random import generator
from saebench.matching.directions import directions
from saebench.metrics.variance_share import LINEAR_TOLERANCE

PIECES, ROWS = 4, 32
"""Tokens of a stream that are tried: so many batches, and so many tokens of each."""
SMALL, SINGLE = 7, 1
"""Sizes of batches in which some of them are encoded again, four of each."""
NEAR = 1e-3
"""Of a token's largest value: how far values may be apart. Another order of sums moves float32 by about 1e-6."""
ODD = 0.01
"""Share of entries, or of tokens, that may be further apart: values within rounding of a threshold."""
DENSER = 0.05
"""How much denser codes of the loss stream may be than those of the same tokens in stream `eval`."""
NUDGE, JUMP, JUMPING = 2.0**-8, 0.1, 0.25
"""What moves by a tenth, for a quarter of the tokens, where its input moves as bfloat16 rounds, reads digits."""
DIRECTIONS, PARALLEL = 16, 0.99
"""So many latents' directions are compared with what decode writes; two of them are one from this cosine on."""


@dataclass
class Sample:
    """Some tokens of one stream: `x [m, d_in]`, the codes that were scored, their reconstruction where one was."""

    stream: str
    pieces: list[tuple[Tensor, SparseCodes, Tensor | None]] = field(default_factory=list)
    n_batches: int = 0

    def take(self, x: Tensor, codes: SparseCodes, x_hat: Tensor | None) -> None:
        """Keeps some tokens of some batches: each batch of the stream is kept as likely as any other."""
        draws = generator(self.n_batches, f"probe {self.stream}")
        self.n_batches += 1
        place = int(torch.randint(self.n_batches, (1,), generator=draws))
        if x.shape[0] == 0 or (len(self.pieces) == PIECES and place >= PIECES):
            return
        rows = torch.randperm(x.shape[0], generator=draws)[:ROWS].sort().values.to(x.device)
        piece = x[rows], codes.select(rows), None if x_hat is None else x_hat[rows]
        if len(self.pieces) < PIECES:
            self.pieces.append(piece)
        else:
            self.pieces[place] = piece

    def together(self) -> tuple[Tensor, SparseCodes, Tensor | None]:
        """All of it, in an order of its own."""
        xs, codes, hats = zip(*self.pieces, strict=True)
        x, whole = torch.cat(xs), SparseCodes.concatenate(codes)
        x_hat = torch.cat(hats) if all(hat is not None for hat in hats) else None
        order = torch.randperm(x.shape[0], generator=generator(0, f"probe {self.stream}")).to(x.device)
        return x[order], whole.select(order), None if x_hat is None else x_hat[order]


@dataclass
class Findings:
    """What was seen of one SAE, over all streams and datasets.

    Attributes:
        l0: Entries and tokens by stream.
        coupled: How codes depend on the batch; None where they do not.
        deviation: The largest departure of decode from a linear map, over what it writes; None where nothing was
            reconstructed.
    """

    l0: dict[str, list[int]] = field(default_factory=dict)
    coupled: str | None = None
    deviation: float | None = None

    def count(self, stream: str, codes: SparseCodes) -> None:
        """Counts canonical codes: no entry is zero."""
        total = self.l0.setdefault(stream, [0, 0])
        total[0] += codes.values.numel()
        total[1] += codes.n_rows

    def details(self) -> dict[str, Any]:
        """As the record's details hold them."""
        found: dict[str, Any] = {"l0_streams": {name: nnz / n for name, (nnz, n) in self.l0.items() if n}}
        if self.coupled is not None:
            found["batch_coupled"] = self.coupled
        if self.deviation is not None:
            found |= {"decode_linear": self.deviation <= LINEAR_TOLERANCE, "decode_deviation": self.deviation}
        return found


def try_sample(
    sample: Sample,
    encode: Callable[[Tensor], SparseCodes],
    decode: Callable[[SparseCodes], Tensor],
    findings: Findings,
    *,
    decoder: Any,
    label: str,
    may_be_coupled: bool,
) -> None:
    """Encodes and decodes a sample again.

    Raises:
        PluginError: Codes depend on the batch, and no tag says so; or a reconstruction depends on more than codes.
    """
    if not sample.pieces:
        return
    x, codes, x_hat = sample.together()
    found = _coupled(x, codes, encode)
    if found is not None:
        said = f"on stream {sample.stream} codes depend on the batch: {found}"
        if not may_be_coupled:
            raise PluginError(
                f"{label}: {said}. Encode each token by itself (a threshold in place of statistics of the batch), or "
                "tag the architecture 'batch_coupled': it is shown then, and not ranked."
            )
        findings.coupled = findings.coupled or said
    if x_hat is None:
        return
    again = decode(codes)
    if (odd := _apart(again, x_hat)) > ODD:
        said = f"{odd:.0%} of the tokens are reconstructed otherwise from the same codes ({ODD:.0%} is allowed)"
        if not (may_be_coupled and findings.coupled):
            raise PluginError(
                f"{label}: on stream {sample.stream} {said}. Decode from codes alone: keep nothing of x between encode "
                "and decode."
            )
    _try_side(sample.stream, codes, x_hat, decode, label)
    _try_decoder(sample.stream, codes, x_hat, decode, findings, decoder, label)


def denser(eval_l0: Tensor, loss_l0: Tensor, label: str) -> None:
    """Compares how many latents fire on the tokens that both streams begin with.

    Raises:
        PluginError: The loss stream's codes are more than `DENSER` denser.
    """
    n = min(eval_l0.numel(), loss_l0.numel())
    if n == 0:
        return
    ours, theirs = (float(l0[:n].double().mean()) for l0 in (eval_l0, loss_l0))
    if theirs > (1 + DENSER) * ours and theirs - ours > 1 / n:
        raise PluginError(
            f"{label}: L0 is {theirs:.4g} on stream loss and {ours:.4g} on stream eval, on the same {n:,} tokens "
            f"({DENSER:.0%} more is allowed). Encode equal tokens alike."
        )


def disagreement(ours: SparseCodes, theirs: SparseCodes) -> float:
    """Share of all entries of two canonical codes of the same tokens that one has alone, or that are not near.

    An entry that one has alone is forgiven where it is as small as the smallest of the other's row: a tie that rounding
    decided.
    """
    keys = [codes.rows() * codes.d_sae + codes.latents for codes in (ours, theirs)]
    scale = torch.maximum(_extreme(ours, "amax"), _extreme(theirs, "amax"))
    shared = torch.isin(keys[0], keys[1])
    bad, total = 0, keys[0].numel() + keys[1].numel() - int(shared.sum())
    for mine, codes, other, others_keys in ((keys[0], ours, theirs, keys[1]), (keys[1], theirs, ours, keys[0])):
        alone, rows = ~torch.isin(mine, others_keys), codes.rows()
        edge = _extreme(other, "amin")[rows[alone]]
        bad += int(((codes.values[alone].abs() - edge).abs() > NEAR * scale[rows[alone]]).sum())
    both = torch.isin(keys[1], keys[0])
    apart = (ours.values[shared] - theirs.values[both]).abs()
    bad += int((apart > NEAR * scale[ours.rows()[shared]]).sum())
    for name, values in ours.side.items():
        far = (values - theirs.side[name]).abs()
        bad += int((far > NEAR * values.abs().amax()).sum())
        total += far.numel()
    return bad / total if total else 0.0


def _extreme(codes: SparseCodes, which: str) -> Tensor:
    """`[B]`: the largest or the smallest absolute value of each row; 0 where it is empty."""
    return codes.values.new_zeros(codes.n_rows).scatter_reduce(
        0, codes.rows(), codes.values.abs(), which, include_self=False
    )


def _coupled(x: Tensor, codes: SparseCodes, encode: Callable[[Tensor], SparseCodes]) -> str | None:
    """How codes of the same tokens differ when they are encoded in other batches; None where they do not."""
    n = x.shape[0]
    tries = [(n, n), (min(n, 4 * SMALL), SMALL), (min(n, 4 * SINGLE), SINGLE)]
    for rows, size in tries:
        again = SparseCodes.concatenate([encode(part) for part in torch.split(x[n - rows :], size)])
        first = codes.slice(n - rows, n)
        if (odd := disagreement(first, again)) > ODD:
            before, after = (found.values.numel() / rows for found in (first, again))
            return (
                f"{odd:.0%} of the entries differ in batches of {size} ({ODD:.0%} is allowed), and L0 is {after:.4g} "
                f"where it was {before:.4g}"
            )
    return None


def _apart(again: Tensor, x_hat: Tensor) -> float:
    """Share of rows that are further apart than `NEAR` of their norm, or of that of a typical row."""
    norms = x_hat.double().norm(dim=1)
    scale = norms.clamp(min=float(norms.mean()))
    return float(((again.double() - x_hat.double()).norm(dim=1) > NEAR * scale).double().mean())


def _try_decoder(
    stream: str,
    codes: SparseCodes,
    x_hat: Tensor,
    decode: Callable[[SparseCodes], Tensor],
    findings: Findings,
    decoder: Any,
    label: str,
) -> None:
    """Whether decode is linear in the codes, side values kept; where it is not, whether it jumps."""
    draws = generator(0, f"decoder {stream}")
    mine = (torch.rand(codes.values.numel(), generator=draws) < 0.5).to(codes.values.device)
    silent = decode(_only(codes, torch.zeros_like(mine))).double()
    halves = decode(_only(codes, mine)).double() + decode(_only(codes, ~mine)).double() - silent
    shrunk = 2 * (decode(codes.scaled(0.5)).double() - silent) + silent
    written = (x_hat.double() - silent).norm()
    noise = 2e-6 * float(x_hat.double().norm())  # of a constant part much larger than what codes add
    off = max(float((made - x_hat.double()).norm()) for made in (halves, shrunk))
    deviation = max(0.0, off - noise) / float(written) if written > 0 else 0.0
    findings.deviation = max(findings.deviation or 0.0, deviation)
    if deviation <= LINEAR_TOLERANCE:
        _try_directions(codes, silent, decode, decoder, label)
        return
    nudged = replace(codes, values=_nudged(codes.values, draws))
    jumping = _jumps(decode(nudged), x_hat, (x_hat.double() - silent).norm(dim=1))
    if jumping > JUMPING:
        raise PluginError(
            f"{label}: on stream {stream} decode moves by over {JUMP:.0%} for {jumping:.0%} of the tokens where codes "
            f"move by {NUDGE:.1%} ({JUMPING:.0%} is allowed): it reads digits, or looks codes up. Put one number into "
            "one value."
        )


def _try_side(
    stream: str, codes: SparseCodes, x_hat: Tensor, decode: Callable[[SparseCodes], Tensor], label: str
) -> None:
    """Whether decode jumps where side values move a little: an index into a table does, a mean or a scale does not."""
    if not codes.side:
        return
    draws = generator(0, f"side {stream}")
    side = {name: _nudged(values, draws) for name, values in codes.side.items()}
    spread = (x_hat.double() - x_hat.double().mean(0)).norm(dim=1)
    jumping = _jumps(decode(replace(codes, side=side)), x_hat, spread.clamp(min=float(spread.mean())))
    if jumping > JUMPING:
        raise PluginError(
            f"{label}: on stream {stream} decode moves by over {JUMP:.0%} for {jumping:.0%} of the tokens where side "
            f"values ({', '.join(side)}) move by {NUDGE:.1%} ({JUMPING:.0%} is allowed): they are no quantities, but "
            "point at something. Put what decode needs into the codes."
        )


def _nudged(values: Tensor, draws: torch.Generator) -> Tensor:
    """Each value a little larger or a little smaller."""
    up = (torch.rand(values.shape, generator=draws) < 0.5).to(values.device)
    return values * torch.where(up, 1 + NUDGE, 1 - NUDGE)


def _jumps(moved: Tensor, x_hat: Tensor, scale: Tensor) -> float:
    """Share of tokens whose reconstruction moves by more than `JUMP` of `scale [B]`."""
    jumps = (moved.double() - x_hat.double()).norm(dim=1)
    return float((jumps > JUMP * scale).double().mean())


def _try_directions(
    codes: SparseCodes, silent: Tensor, decode: Callable[[SparseCodes], Tensor], decoder: Any, label: str
) -> None:
    """Whether `decoder_directions` are what a linear decode writes: stability is measured on them."""
    rows = directions(decoder, "decoder")
    latents = torch.unique(codes.latents)[: min(DIRECTIONS, codes.n_rows)]
    if not isinstance(rows, Tensor) or rows.shape != (codes.d_sae, silent.shape[1]) or latents.numel() == 0:
        return
    n = latents.numel()
    unit = codes.values.abs().mean().expand(n)
    offsets = torch.arange(n + 1, device=latents.device)
    side = {name: values[:n] for name, values in codes.side.items()}
    written = decode(SparseCodes(unit.clone(), latents, offsets, codes.d_sae, side)).double() - silent[:n]
    told = rows.detach()[latents.to(rows.device)].to(written)
    cosines = torch.nn.functional.cosine_similarity(written, told, dim=1)
    cosines[written.norm(dim=1) <= 1e-6 * silent.norm(dim=1).max()] = 1.0  # nothing is written: there is no direction
    worst = int(cosines.argmin())
    if float(cosines[worst]) < PARALLEL:
        raise PluginError(
            f"{label}: decoder_directions are not what decode writes: latent {int(latents[worst])} has cosine "
            f"{float(cosines[worst]):.3f} between both ({PARALLEL} is needed). Return the rows that decode adds up."
        )


def _only(codes: SparseCodes, keep: Tensor) -> SparseCodes:
    """The entries where `keep [nnz]`, of the same rows."""
    offsets = SparseCodes.offsets_from_rows(codes.rows()[keep], codes.n_rows)
    return replace(codes, values=codes.values[keep], latents=codes.latents[keep], offsets=offsets)
