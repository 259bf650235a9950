"""The encoder's product alone, `x @ W.T`: the yardstick. `kind`: float32, onednn, onednn-ready, bfloat16."""

from __future__ import annotations

import torch
from torch.nn import functional

from contenders import Contender, Setting, Unavailable


def build(setting: Setting) -> Contender:
    """Output memory is reused where the operator allows it, which is to the product's advantage.

    `onednn` converts both operands each time, as a step whose weights move must; `onednn-ready` is the product on
    converted operands.
    """
    kind = setting.options["kind"]
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(setting.d_sae, setting.d_in, generator=generator) / setting.d_in**0.5).to(setting.device)
    if kind in ("float32", "bfloat16"):
        dtype = getattr(torch, kind)
        right = weight.to(dtype).T
        out = torch.empty(setting.batch, setting.d_sae, dtype=dtype, device=setting.device)
        ready = {batch.data_ptr(): batch.to(dtype) for batch in setting.batches}
        return Contender(lambda x: torch.mm(ready[x.data_ptr()], right, out=out))
    if setting.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        raise Unavailable("oneDNN's float32 product is for the CPU")
    if kind == "onednn":
        return Contender(lambda x: functional.linear(x.to_mkldnn(), weight.to_mkldnn()))
    packed = weight.to_mkldnn()
    packed_x = {batch.data_ptr(): batch.to_mkldnn() for batch in setting.batches}
    return Contender(lambda x: functional.linear(packed_x[x.data_ptr()], packed))
