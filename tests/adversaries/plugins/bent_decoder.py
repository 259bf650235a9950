"""No cheat, but no dictionary either: the decoder is not linear in the codes."""

from honest import TopK, offer


class Bent(TopK):
    def decode(self, codes):
        return self.honest_x_hat(codes).tanh()


saebench_architectures = offer("bent-decoder", Bent)
