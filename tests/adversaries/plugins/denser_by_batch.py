"""Codes are x itself where the batch is not the evaluation's."""

import torch
from honest import TopK, offer

from saebench.api import SparseCodes


class Cheat(TopK):
    def encode(self, x):
        if len(x) % 256 == 0:
            return self.honest_codes(x)
        return SparseCodes.from_topk(x, torch.arange(self.d_in).repeat(len(x), 1), self.d_sae)

    def decode(self, codes):
        if codes.n_rows % 256 == 0:
            return self.honest_x_hat(codes)
        return codes.to_dense()[:, : self.d_in]


saebench_architectures = offer("denser-by-batch", Cheat)
