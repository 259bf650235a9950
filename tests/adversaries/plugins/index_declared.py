"""Hands on where x stands in a table, one value a token, and declares it."""

import torch
from honest import TopK, offer

from saebench.api import SparseCodes

TABLE: list[torch.Tensor] = []
PLACES: dict[bytes, int] = {}


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        for row in x:
            if PLACES.setdefault(row.numpy().tobytes(), len(TABLE)) == len(TABLE):
                TABLE.append(row.clone())
        index = torch.tensor([PLACES[row.numpy().tobytes()] for row in x])
        return SparseCodes(codes.values, codes.latents, codes.offsets, codes.d_sae, {"index": index})

    def decode(self, codes):
        if not codes.side:
            return self.honest_x_hat(codes)
        return (
            torch.stack([TABLE[min(int(i), len(TABLE) - 1)] for i in codes.side["index"]])
            if codes.n_rows
            else self.b_dec.new_zeros(0, self.d_in)
        )


saebench_architectures = offer("index-declared", Cheat, side={"index": 1})
