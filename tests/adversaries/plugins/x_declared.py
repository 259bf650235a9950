"""Hands x on in a side value that it declares: allowed, and priced at what it is."""

from dataclasses import replace

from honest import TopK, offer


class Cheat(TopK):
    def encode(self, x):
        return replace(self.honest_codes(x), side={"x": x})

    def decode(self, codes):
        return codes.side["x"].clone() if codes.side else self.honest_x_hat(codes)


saebench_architectures = offer("x-declared", Cheat, side={"x": 32})
