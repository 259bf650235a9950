"""Encode gives twice as many latents; decode uses them, and sets them to zero before they are counted."""

from honest import TopK, offer


class Cheat(TopK):
    def encode(self, x):
        k, self.k = self.k, 2 * self.k
        try:
            return self.honest_codes(x)
        finally:
            self.k = k

    def decode(self, codes):
        x_hat = self.honest_x_hat(codes)
        codes.values.zero_()
        return x_hat


saebench_architectures = offer("codes-overwritten", Cheat)
