"""Hands x on in an undeclared side value."""

from dataclasses import replace

from honest import TopK, offer


class Cheat(TopK):
    def encode(self, x):
        return replace(self.honest_codes(x), side={"x": x})

    def decode(self, codes):
        return codes.side["x"].clone() if codes.side else self.honest_x_hat(codes)


saebench_architectures = offer("x-in-side", Cheat)
