"""Gives a latent twice in a row, so that one latent carries two values."""

from honest import TopK, offer

from saebench.api import SparseCodes


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        latents = codes.latents.view(len(x), -1).clone()
        latents[:, 1] = latents[:, 0]
        return SparseCodes.from_topk(codes.values.view(len(x), -1) + 1, latents, self.d_sae)


saebench_architectures = offer("twice-a-latent", Cheat)
