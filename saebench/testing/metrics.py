"""What every metric must do. `check_metric` computes it on an example SAE, cut into batches in several ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from saebench.api import CellMetricSpec, GroupMetricSpec, MetricInfo, MetricResult, MetricSpec, MetricValue
from saebench.base.canonical import digest
from saebench.host.fitting import misshapen_spec
from saebench.testing.check import Check, Rule, Skip, global_random_untouched, run_rules

if TYPE_CHECKING:
    from saebench.testing.shown_scores import Scores

NEAR = 1e-5
"""How far a value may move where the same tokens come in other batches, as a fraction: sums in float32 round."""
RANGES = {"fraction": (0.0, 1.0)} | dict.fromkeys(
    ("latents", "tokens", "flops", "seconds", "bytes", "values"), (0.0, float("inf"))
)


class _Case:
    def __init__(self, spec: MetricSpec) -> None:
        self.spec = spec
        self.infos: dict[str, MetricInfo] = {info.id: info for info in spec.provides}

    def scores(self, **more: Any) -> Scores:
        from saebench.testing.shown_scores import Scores

        return Scores(self.spec, **more)

    def values(self, scores: Scores | None = None, size: int = 64, order: int = 1) -> dict[str, float | None]:
        result = (scores or self.scores()).result(size, order)
        return {name: value.value for name, value in result.values.items()}


def _spec_is_well_formed(case: _Case) -> None:
    if wrong := misshapen_spec(case.spec):
        raise AssertionError(wrong)
    assert case.spec.version, "the version is empty"
    for info in case.infos.values():
        assert info.description.strip(), f"metric '{info.id}' has no description"


def _gives_every_value(case: _Case) -> None:
    _complete(case, case.scores().result())


def _complete(case: _Case, result: object) -> None:
    assert isinstance(result, MetricResult), f"a metric must give MetricResult, got {type(result).__name__}"
    assert set(result.values) == set(case.infos), (
        f"it gives {sorted(result.values)}, its spec provides {sorted(case.infos)}"
    )
    for name, value in result.values.items():
        info = case.infos[name]
        assert isinstance(value, MetricValue), f"'{name}' is {type(value).__name__}, needed MetricValue"
        assert (value.unit, value.direction) == (info.unit, info.direction), (
            f"'{name}' says {value.unit}, {value.direction}; its MetricInfo says {info.unit}, {info.direction}"
        )
    try:
        digest(dict(result.details))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"details must be plain JSON ({error})") from error


def _random_is_given(case: _Case) -> None:
    with global_random_untouched("the metric"):
        case.values()


def _inputs_stay(case: _Case) -> None:
    scores = case.scores()
    before = scores.fingerprint()
    scores.result()
    assert scores.fingerprint() == before, "the metric writes to the tensors that it is shown"


def _runs_are_apart(case: _Case) -> None:
    assert _apart(case.values(), case.values()) is None, "a second computation of the same tokens gives another value"


def _apart(first: dict[str, float | None], second: dict[str, float | None]) -> str | None:
    for name, a in first.items():
        b = second[name]
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > NEAR * max(1, abs(a))):
            return f"'{name}' is {a} and {b}"
    return None


def _batches_do_not_matter(case: _Case) -> None:
    if isinstance(case.spec, GroupMetricSpec):
        raise Skip("a group metric reads whole SAEs")
    reference = case.values(size=64)
    for size in (1, 7, 1_000):
        wrong = _apart(reference, case.values(size=size))
        assert wrong is None, f"in batches of 64 and {size}, {wrong}"


def _order_does_not_matter(case: _Case) -> None:
    wrong = _apart(case.values(order=1), case.values(order=-1))
    assert wrong is None, f"forwards and backwards, {wrong}"


def _in_range(case: _Case) -> None:
    # what is left of a variance, or won back of a loss, may lie beyond 0 and 1
    unbounded = {"reconstruction", "losses"} & set(getattr(case.spec, "fields", ()))
    for name, value in case.values().items():
        if unbounded and case.infos[name].unit == "fraction":
            continue
        low, high = RANGES.get(case.infos[name].unit, (float("-inf"), float("inf")))
        assert value is None or low <= value <= high, f"'{name}' in {case.infos[name].unit} is {value}"


def _direction_is_right(case: _Case) -> None:
    """A perfect reconstruction is not worse than noise."""
    if not isinstance(case.spec, CellMetricSpec) or not {"reconstruction", "losses"} & set(case.spec.fields):
        raise Skip("it reads neither reconstructions nor losses")
    perfect, noise = case.values(case.scores(quality="perfect")), case.values(case.scores(quality="noise"))
    for name, good in perfect.items():
        bad, sign = noise[name], {"lower": -1, "higher": 1}.get(case.infos[name].direction, 0)
        if good is not None and bad is not None:
            assert sign * (good - bad) >= 0, (
                f"'{name}' is {good} for a perfect reconstruction and {bad} for noise, and said to be better "
                f"{case.infos[name].direction}"
            )


def _null_has_a_reason(case: _Case) -> None:
    """No token, no stream, one token, no latent that fires: a number or a reason, never an exception."""
    if isinstance(case.spec, GroupMetricSpec):
        _complete(case, case.scores(quality="dead").result())
        return
    for what, scores in (
        ("no token", case.scores(n_tokens=0)),
        ("one token", case.scores(n_tokens=1)),
        ("tokens on which no latent fires", case.scores(quality="dead")),
        ("no stream", case.scores(streams=False)),
    ):
        try:
            _complete(case, scores.result())
        except AssertionError as error:
            raise AssertionError(f"of {what}, {error}") from error
        except Exception as error:
            raise AssertionError(f"of {what}, it raises {type(error).__name__}: {error}") from error


_Holds = Callable[[_Case], None]
_BASE: tuple[_Holds, ...] = (_gives_every_value,)
RULES: tuple[Rule[_Case], ...] = (
    Rule(
        "the spec is well formed, with a version and descriptions",
        _spec_is_well_formed,
        "Give each id a MetricInfo with unit, direction, family and a line that has the formula.",
    ),
    Rule(
        "every id is computed, in its unit and direction",
        _gives_every_value,
        "Use MetricValue.of(INFO, value, n, reason=...), which takes unit and direction from the MetricInfo.",
        (_spec_is_well_formed,),
    ),
    Rule("it draws from no global generator", _random_is_given, "Use torch.Generator().manual_seed(...).", _BASE),
    Rule(
        "it writes to nothing that it is shown",
        _inputs_stay,
        "Use x - y, not x -= y: others read the batch too.",
        _BASE,
    ),
    Rule(
        "computations do not touch each other",
        _runs_are_apart,
        "Keep sums on the object that make() gives, never on its class or module.",
        (*_BASE, _random_is_given, _inputs_stay),
    ),
    Rule(
        "how tokens are cut into batches does not matter",
        _batches_do_not_matter,
        "Add up sums and counts, and divide once in compute(): a mean of batch means weighs tokens unequally.",
        (*_BASE, _random_is_given, _inputs_stay, _runs_are_apart),
    ),
    Rule(
        "the order does not matter",
        _order_does_not_matter,
        "Keep nothing of the first or the last batch alone; treat the members of a group alike.",
        (*_BASE, _random_is_given, _inputs_stay, _runs_are_apart, _batches_do_not_matter),
    ),
    Rule(
        "values are in the range of their unit", _in_range, "A fraction lies in 0 to 1; a count is not negative.", _BASE
    ),
    Rule(
        "better is in the direction that is declared",
        _direction_is_right,
        "direction says which way is better: lower for errors, higher for what is explained.",
        _BASE,
    ),
    Rule(
        "what cannot be computed is null with a reason",
        _null_has_a_reason,
        "MetricValue.of(INFO, None, 0, reason='no token was read'); test the count before you divide.",
        _BASE,
    ),
)


def check_metric(spec: MetricSpec) -> Sequence[Check]:
    """Runs every check on one cell or group metric, on an example SAE.

    Returns:
        One `Check` per rule; none of them failed when the contract holds.
    """
    return run_rules(RULES, _Case(spec))
