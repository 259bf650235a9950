"""Encode writes its own reconstruction over x, which is the target too."""

from honest import TopK, offer


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        x.copy_(self.honest_x_hat(codes))
        return codes


saebench_architectures = offer("x-overwritten", Cheat)
