"""No cheat: reads x without its mean and size, which decode gets back, declared at two values a token."""

from dataclasses import replace

from honest import TopK, offer


class LayerNormed(TopK):
    def encode(self, x):
        mean, scale = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        codes = self.honest_codes((x - mean) / scale)
        return replace(codes, side={"mean": mean, "scale": scale.squeeze(1)})

    def decode(self, codes):
        x_hat = self.honest_x_hat(codes)
        return x_hat * codes.side["scale"][:, None] + codes.side["mean"] if codes.side else x_hat


saebench_architectures = offer("mean-and-scale", LayerNormed, side={"mean": 1, "scale": 1})
