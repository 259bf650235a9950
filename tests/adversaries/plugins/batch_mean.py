"""Encode takes the mean of its batch away; the tag says that codes are coupled."""

from honest import TopK, offer


class Coupled(TopK):
    def encode(self, x):
        return self.honest_codes(x - x.mean(0))


saebench_architectures = offer("batch-mean", Coupled, tags=frozenset({"batch_coupled"}))
