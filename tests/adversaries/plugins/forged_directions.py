"""Tells directions that are the same for every seed, so that all seeds seem to have learnt the same latents."""

import torch
from honest import TopK, offer


class Cheat(TopK):
    def decoder_directions(self):
        return torch.randn(self.d_sae, self.d_in, generator=torch.Generator().manual_seed(0))


saebench_architectures = offer("forged-directions", Cheat)
