"""Rules of what a training step costs: products and memory, counted, against what the spec's cost says."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

from saebench.api import Cost
from saebench.cells.cell import ArchitectureUse
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost
from saebench.testing.architecture.building import cost_is_the_modules, is_an_sae, shapes
from saebench.testing.architecture.case import FIRST, Case
from saebench.testing.architecture.learning import loss_is_per_token
from saebench.testing.check import Rule, Skip

WIDE = 2048
"""Latents at which a dense `[B, d_sae]` matrix is larger than all else of a step on example activations."""
FLOPS_OVER, MEMORY_OVER, MEMORY_SPARE = 1.25, 2.0, 1 << 20
"""Counted products may exceed the cost by a quarter, memory by a factor of two and 1 MB. The built-in architectures are
counted at up to 1.06 times their FLOPs and 1.53 times their memory (relu-l1 where products run in bfloat16)."""


def wide_case(case: Case) -> tuple[Case, Any, Cost]:
    """The architecture with many latents, its module, and what its spec says that it costs."""
    if case.base is not None:
        raise Skip("a wrapper's cost needs its base's")
    config = case.config
    if any(field.name == "d_sae" for field in dataclasses.fields(config)):
        config = dataclasses.replace(config, d_sae=WIDE)
    wide = Case(case.spec, config, case.d_in, None)
    if list(case.spec.check(config, wide.site)):
        raise Skip(f"its check refuses {WIDE} latents")
    sae = wide.build()
    if not any(parameter.requires_grad for parameter in sae.parameters()):
        raise Skip("nothing has a gradient")
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    catalog = Catalog(architectures={case.spec.name: Registered(case.spec, "", "", "")})
    use = ArchitectureUse(case.spec.name, case.spec.version, values)
    return wide, sae, architecture_cost(use, None, wide.site, catalog)


def step_flops(wide: Case, sae: Any, cost: Cost) -> tuple[int, int]:
    """Floating-point operations of a step's matrix products, counted; and those of the whole step, by its cost."""
    from torch.utils.flop_counter import FlopCounterMode

    from saebench.nn import loss_and_grad

    batch = wide.batch(slice(None))
    with FlopCounterMode(display=False) as counter:
        terms = loss_and_grad(sae, batch, FIRST, None)
    codes = terms.codes if terms.codes is not None else wide.codes(sae, batch.x)
    said = batch.n_tokens * cost.train_flops_per_token + codes.values.numel() * cost.train_flops_per_active
    return int(counter.get_total_flops()), said + cost.step_flops + terms.flops


def flops_are_those_counted(case: Case) -> None:
    """Of one step at many latents."""
    counted, said = step_flops(*wide_case(case))
    assert counted <= FLOPS_OVER * said, (
        f"the products of one step of {WIDE} latents took {counted:,} FLOPs, the spec's cost says {said:,} for all of "
        "it"
    )


def memory_is_that_measured(case: Case) -> None:
    """Of one step at many latents."""
    from saebench.nn import loss_and_grad

    wide, sae, cost = wide_case(case)
    batch = wide.batch(slice(None))
    with _new_memory() as memory:
        loss_and_grad(sae, batch, FIRST, None)
    said = cost.step_workspace_bytes(batch.n_tokens) + 4 * cost.n_parameters
    assert memory.peak <= MEMORY_OVER * said + MEMORY_SPARE, (
        f"one step of {batch.n_tokens} tokens and {WIDE} latents held {memory.peak:,} bytes of new tensors, the spec's "
        f"cost says {said:,}"
    )


def _new_memory() -> Any:
    """A context that knows the most bytes that tensors made inside it held at once (`peak`)."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.held = self.peak = 0
            self._seen: set[int] = set()

        def _gone(self, key: int, size: int) -> None:
            self.held -= size
            self._seen.discard(key)

        @staticmethod
        def _storages(things: Any) -> list[Any]:
            leaves = (leaf for leaf in tree_leaves(things) if torch.is_tensor(leaf) and leaf.layout == torch.strided)
            return [leaf.untyped_storage() for leaf in leaves]

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {storage._cdata for storage in self._storages((args, kwargs))}
            answer = function(*args, **(kwargs or {}))
            for storage in self._storages(answer):
                key = storage._cdata
                if key in given or key in self._seen:
                    continue
                self._seen.add(key)
                self.held += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes())
            self.peak = max(self.peak, self.held)
            return answer

    return Memory()


RULES: tuple[Rule[Case], ...] = (
    Rule(
        "a step takes the FLOPs that its cost says",
        flops_are_those_counted,
        "Count a multiply-add as two, and the backward pass too: a dense step is six products. Or leave `cost` out.",
        (is_an_sae, shapes, loss_is_per_token, cost_is_the_modules),
    ),
    Rule(
        "a step takes the memory that its cost says",
        memory_is_that_measured,
        "Is a [B, d_sae] matrix made where the cost counts active latents alone (codes.to_dense(), z * mask)? Use "
        "saebench.nn, or say so in workspace_bytes_per_token.",
        (is_an_sae, shapes, loss_is_per_token, cost_is_the_modules),
    ),
)
