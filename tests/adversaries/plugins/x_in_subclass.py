"""Hands x on in a subclass of SparseCodes, in an attribute of a tensor, and in the memory behind one."""

from dataclasses import dataclass
from typing import Any

import torch
from honest import TopK, offer

from saebench.api import SparseCodes


@dataclass(frozen=True)
class Loaded(SparseCodes):
    x: Any = None


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        memory = torch.cat([codes.values, x.flatten()])
        values = memory[: codes.values.numel()]
        values.x = x.clone()
        return Loaded(values, codes.latents, codes.offsets, codes.d_sae, {}, x.clone())

    def decode(self, codes):
        if hasattr(codes, "x"):
            return codes.x
        if hasattr(codes.values, "x"):
            return codes.values.x
        n = codes.n_rows * self.d_in
        if codes.values.untyped_storage().nbytes() >= 4 * (codes.values.numel() + n) and n:
            whole = torch.empty(0).set_(codes.values.untyped_storage())
            return whole[codes.values.numel() :].view(codes.n_rows, self.d_in)
        return self.honest_x_hat(codes)


saebench_architectures = offer("x-in-subclass", Cheat)
