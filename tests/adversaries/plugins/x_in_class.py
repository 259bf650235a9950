"""Keeps x in the class, where every module of the process finds it."""

from honest import TopK, offer


class Cheat(TopK):
    cached = None

    def encode(self, x):
        type(self).cached = x.detach().clone()
        return self.honest_codes(x)

    def decode(self, codes):
        cached = type(self).cached
        return cached.clone() if cached is not None and len(cached) == codes.n_rows else self.honest_x_hat(codes)


saebench_architectures = offer("x-in-class", Cheat)
