"""Floor and ceiling rows: random directions, a permuted decoder, PCA and the identity, one set for each site and d_sae."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saebench.api.errors import SuiteError, first_line
from saebench.config import Problems, Suite
from saebench.config.problems import Path
from saebench.host import Catalog
from saebench.plan.contenders.points import Arm, Draft, field_names, make_arm

IDENTITY = "control-identity"
SPARSE = ("control-random", "control-permuted", "control-pca")


def control_arms(suite: Suite, catalog: Catalog, arms: Sequence[Arm]) -> tuple[list[tuple[Arm, Arm]], tuple[str, ...]]:
    """Controls of a suite, each with the arm that it is made after.

    Random, permuted and PCA stand at the first entry's first sweep point of their site and d_sae, with `k` its expected L0; the
    permuted one starts from that arm's weights. The identity stands once a site.

    Returns:
        Pairs (control, reference arm), and remarks on controls that cannot exist.
    """
    made: list[tuple[Arm, Arm]] = []
    warnings: list[str] = []
    firsts: dict[tuple[tuple[str, ...], int], Arm] = {}
    sites: dict[tuple[str, ...], Arm] = {}
    # the first entry as the suite lists them (sorting keeps its points in order), the fixed ones before candidates of a search;
    # a wrapper cannot be wrapped again
    plain = [arm for arm in arms if arm.base is None]
    for arm in sorted(plain, key=lambda arm: (arm.search is not None, arm.index or 0)):
        firsts.setdefault((arm.site.key, arm.d_sae), arm)
        sites.setdefault(arm.site.key, arm)
    wanted = [(name, arm, _size(name, arm)) for arm in firsts.values() for name in SPARSE] + [
        (IDENTITY, arm, arm.site.site.d_in) for arm in sites.values()
    ]
    seen: set[tuple[str, tuple[str, ...], int, int]] = set()
    for name, reference, d_sae in wanted:
        if name != IDENTITY and reference.cost.expected_l0 is None:
            warnings.append(
                f"{name} at {_place(reference)} is left out: {reference.entry!r}, the first entry there, aims at no L0 to compare at."
            )
            continue
        k = d_sae if name == IDENTITY else min(d_sae, max(1, round(reference.cost.expected_l0 or 0)))
        if (key := (name, reference.site.key, d_sae, k)) in seen:
            continue  # two dictionary sizes over d_in have one and the same PCA
        seen.add(key)
        found = Problems(suite.where)
        control = _control(name, reference, d_sae, k, suite, catalog, found)
        if control is not None:
            made.append((control, reference))
        else:
            try:
                found.stop()
            except SuiteError as error:
                warnings.append(f"{name} at {_place(reference)} is left out: {first_line(error)}")
    return made, tuple(warnings)


def _size(name: str, arm: Arm) -> int:
    """Latents of a control: as many as its reference, but PCA has no more components than dimensions."""
    return min(arm.d_sae, arm.site.site.d_in) if name == "control-pca" else arm.d_sae


def _place(arm: Arm) -> str:
    return f"{arm.site.model.hookpoint_name if arm.site.model else arm.dataset.name}, d_sae {arm.d_sae}"


def _control(
    name: str, reference: Arm, d_sae: int, k: int, suite: Suite, catalog: Catalog, problems: Problems
) -> Arm | None:
    try:
        registered = catalog.architecture(name)
    except SuiteError as error:
        problems.take(error, ("controls",))
        return None
    fields = field_names(registered.spec.config)
    values: Mapping[str, int] = {key: value for key, value in (("d_sae", d_sae), ("k", k)) if key in fields}
    point = f"d_sae{d_sae}" if name == IDENTITY else f"d_sae{d_sae}-k{k}"

    def key_path(_: str) -> Path:
        return ("controls",)

    draft = Draft(
        index=None,
        entry=name,
        point=point,
        sweep={},
        values=values,
        key_path=key_path,
        label="controls",
        site=reference.site,
        dataset=reference.dataset,
        registered=registered,
        parent=reference if registered.spec.parent == "required" else None,
        train=reference.train,
        control=True,
    )
    return make_arm(draft, suite, catalog, problems)
