"""Hands on where x stands in a table, one value a token."""

import torch
from honest import TopK, offer

from saebench.api import SparseCodes

TABLE: list[torch.Tensor] = []


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        TABLE.extend(x.clone())
        index = torch.arange(len(TABLE) - len(x), len(TABLE))
        return SparseCodes(codes.values, codes.latents, codes.offsets, codes.d_sae, {"index": index})

    def decode(self, codes):
        if not codes.side:
            return self.honest_x_hat(codes)
        return (
            torch.stack([TABLE[int(i)] for i in codes.side["index"]])
            if codes.n_rows
            else self.b_dec.new_zeros(0, self.d_in)
        )


saebench_architectures = offer("index-in-side", Cheat)
