"""Keeps x in the module."""

from honest import TopK, offer


class Cheat(TopK):
    cached = None

    def encode(self, x):
        self.cached = x.detach().clone()
        return self.honest_codes(x)

    def decode(self, codes):
        if self.cached is not None and len(self.cached) == codes.n_rows:
            return self.cached.clone()
        return self.honest_x_hat(codes)


saebench_architectures = offer("x-cached", Cheat)
