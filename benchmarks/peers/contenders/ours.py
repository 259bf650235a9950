"""saebench: the architecture from the catalog, `nn.loss_and_grad`, the harness's optimiser, `after_step`.

All that changes weights, and AuxK is on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contenders import Contender, Setting, settle_thresholds, shrink
from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.host import load_catalog
from saebench.nn import loss_and_grad
from saebench.nn.kernels import backends
from saebench.train.optimiser import Optimiser

STEPS = 10_000
FIRST = 2_000
"""Steps are taken from the middle of a run of STEPS, where learning rate and penalties have their full size."""
ALLOTTED = 10**10
"""Tokens of that run; so many that no latent dies by itself while it is timed."""


def config_of(setting: Setting) -> dict[str, Any]:
    """The architecture's config at this size."""
    name = setting.options.get("architecture", "topk")
    sparsity = {"target_l0": float(setting.k)} if name == "jumprelu" else {"k": setting.k}
    return {"d_sae": setting.d_sae, **sparsity, **setting.options.get("config", {})}


def build(setting: Setting) -> Contender:
    """`architecture`: a name in the catalog; `config`: more of its config."""
    spec = load_catalog().architecture(setting.options.get("architecture", "topk")).spec
    generator = torch.Generator().manual_seed(0)
    site = Site(setting.d_in, setting.d_in)
    module: Any = resolve(spec.build)(spec.config(**config_of(setting)), site=site, generator=generator)
    module = module.to(setting.device).train()
    if hasattr(module, "init_from_data"):
        with torch.no_grad():
            module.init_from_data(setting.batches[0], generator)
    defaults = spec.train
    lr = defaults.lr * (defaults.reference_width / setting.d_sae) ** 0.5
    settings = TrainSettings(
        len(setting.batches[0]),
        lr,
        defaults.betas,
        defaults.eps,
        defaults.clip,
        warmup=0.05,
        decay=0.2,
        normalise="none",
    )
    optimiser = Optimiser(module, settings, "peers")
    after_step = getattr(module, "after_step", None)
    state: dict[str, Any] = {"index": FIRST}
    noted = _Noted()

    def step(x: Tensor) -> None:
        index = state["index"]
        info = StepInfo(index, index / STEPS, index * ALLOTTED // STEPS, ALLOTTED)
        batch = ActivationBatch(x, x)
        terms = loss_and_grad(module, batch, info)
        optimiser.step(index / STEPS, (index + 1) / STEPS)
        if after_step is not None:
            with torch.no_grad():
                after_step(AfterStep(batch, terms, info, generator, optimiser.reset_moments))
            optimiser.constraints.enforce_again()
        state["index"] += 1
        state["terms"] = terms

    def prepare() -> None:
        noted.take(state.pop("terms", None))
        if setting.dead.numel():
            with torch.no_grad():
                shrink(module.W_enc, setting.dead)
                module.b_enc[setting.dead] = 0.0
                dict(module.named_buffers())["dead.silent"][setting.dead] = ALLOTTED

    @torch.no_grad()
    def before_turn() -> None:
        if "settled" not in state:  # facts are about what is timed
            state["settled"] = True
            state.pop("terms", None)
            noted.sums.clear()
        if hasattr(module, "theta"):
            x = setting.batches[0]
            settle_thresholds((x - module.b_dec) @ module.W_enc.T + module.b_enc, module.theta, setting.k)

    def facts() -> dict[str, Any]:
        noted.take(state.pop("terms", None))
        dead = {"dead": int(module.dead.dead(ALLOTTED).numel())} if hasattr(module, "dead") else {}
        return {"backend": backends.current(setting.device), **noted.means(), **dead}

    return Contender(step, prepare, before_turn, facts)


class _Noted:
    """Means of what steps say about themselves, read outside the clock."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def take(self, terms: LossTerms | None) -> None:
        """The last step's terms."""
        if terms is None:
            return
        found = {"steps": 1.0, "loss": float(terms.reconstruction.mean()), **terms.facts}
        if terms.codes is not None:
            found["l0"] = float(torch.count_nonzero(terms.codes.values)) / terms.reconstruction.shape[0]
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        """Over the steps since they were last cleared."""
        steps = self.sums.get("steps", 0.0)
        return {name: total / steps for name, total in sorted(self.sums.items()) if name != "steps"}
