"""The suite that `saebench init` prints: the way in without writing YAML."""

from __future__ import annotations

import json
from collections.abc import Callable

from saebench.api.errors import SuiteError
from saebench.host import Catalog
from saebench.plan.contenders.plugin_calls import ask

_TEMPLATE = """\
# Sparse autoencoders on your own model and text.
# Save it (mine.yaml, say). Look first: saebench plan mine.yaml        then: saebench run mine.yaml, into runs/mine
schema: 1

models:
  - id: {model}
    hookpoints: [{hookpoint}]      # layers.N = output of the N-th block, from 0; or a dotted module path
    context: {context}                   # tokens a sequence

datasets:
  text: {{plugin: local, path: {text}}}   # one document in five is held out for scoring, by its hash
  own:  {{plugin: faithful, tokens: {tokens:_}}}   # samples of the model itself

entries:                           # the contenders; every point of a sweep gets the full budget
  - {{name: topk,     architecture: topk,     dataset: text, {config}}}, sweep: {{k: {points}}}}}
  - {{name: jumprelu, architecture: jumprelu, dataset: text, {config}}}, sweep: {{target_l0: {points}}}}}
  - {{name: expander, architecture: expander, dataset: text, {config}, degree: 7}}, sweep: {{k: {points}}}}}
  - {{name: faithful, architecture: topk,     dataset: own,  {config}}}, sweep: {{k: {points}}}}}

evaluation: {{datasets: [text], tokens: 65_536, loss_tokens: 16_384, density_tokens: 65_536}}
budget: {{primary: tokens, tokens: {tokens:_}}}   # the same for every contender: raise it for results to trust
seeds: {{init: [0, 1, 2]}}           # several seeds give intervals and stability scores
controls: true                     # floor and ceiling rows: random, permuted, PCA, identity
"""


def starter_suite(
    model: str, text: str, *, hookpoint: str, d_in: int, context: int = 128, tokens: int = 300_000, causal: bool = True
) -> str:
    """YAML text of a suite for a user's own model and text.

    Args:
        model: Folder or hub id.
        text: File or folder of text.
        hookpoint: `layers.N` or a dotted module path.
        d_in: Width at the hookpoint. The dictionary is four times as wide, a power of two from 512 to 16384; the two
            values of L0 are about a sixteenth and an eighth of the width, powers of two from 8 to 64.
        context: Tokens a sequence.
        tokens: Budget of a cell.
        causal: False for an encoder, which writes no samples of its own: then there is no FaithfulSAE entry.
    """
    low = _power_of_two(d_in // 16, 8, 32)
    template = _TEMPLATE if causal else "".join(line for line in _TEMPLATE.splitlines(True) if "faithful" not in line)
    return template.format(
        model=json.dumps(model, ensure_ascii=False),
        text=json.dumps(text, ensure_ascii=False),
        hookpoint=json.dumps(hookpoint),
        context=context,
        config=f"config: {{d_sae: {_power_of_two(4 * d_in, 512, 16384)}",
        points=[low, 2 * low],
        tokens=tokens,
    )


def check_text(text: str, catalog: Catalog, *, say: Callable[[str], None]) -> None:
    """Inspects text as a plan does. A column of another name is a warning alone: the suite's reader writes it in.

    Raises:
        SuiteError: It cannot be read, or one of its splits is empty.
    """
    registered = catalog.dataset("local")
    options = registered.spec.options(path=text)
    found = list(ask(registered, "check", registered.spec.check, options))
    for problem in found:
        if problem.key != "text_column":
            raise SuiteError(f"--text {problem.message}")
        say(f"warning: {problem.message}")
    if not found:
        for reason in ask(registered, "inspect", registered.spec.inspect, options).empty.values():
            raise SuiteError(f"--text {reason}")


def _power_of_two(least: int, low: int, high: int) -> int:
    """The smallest power-of-two multiple of `low` that is at least `least`, at most `high`."""
    value = low
    while value < min(least, high):
        value *= 2
    return value
