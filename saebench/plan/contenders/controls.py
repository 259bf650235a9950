"""Floor and ceiling rows: random directions, a permuted decoder, PCA and the identity, for each site and d_sae."""

from __future__ import annotations

from collections.abc import Sequence

from saebench.api.errors import SuiteError, first_line
from saebench.config import Problems, Suite
from saebench.host import Catalog
from saebench.plan.contenders.contender import Contender, field_names, read_architecture

IDENTITY = "control-identity"
SPARSE = ("control-random", "control-permuted", "control-pca")


def control_contenders(
    suite: Suite, catalog: Catalog, contenders: Sequence[Contender]
) -> tuple[list[tuple[Contender, Contender]], tuple[str, ...]]:
    """Controls of a suite, each with the contender that it is made after.

    Random, permuted and PCA are made at the first entry's first sweep point of their site and d_sae, with `k` its
    expected L0; the permuted one starts from that contender's weights. The identity is made once a site.

    Returns:
        Pairs (control, reference), and remarks on controls that cannot exist.
    """
    made: list[tuple[Contender, Contender]] = []
    warnings: list[str] = []
    firsts: dict[tuple[tuple[str, ...], int], Contender] = {}
    sites: dict[tuple[str, ...], Contender] = {}
    # the first entry as the suite lists them (sorting keeps its points in order), the fixed ones before candidates of a
    # search; a wrapper cannot be wrapped again
    plain = [contender for contender in contenders if contender.architecture.base is None]
    for contender in sorted(plain, key=lambda one: (one.tune is not None, one.index or 0)):
        firsts.setdefault((contender.site.key, contender.architecture.d_sae), contender)
        sites.setdefault(contender.site.key, contender)
    asked = [(name, first, _size(name, first)) for first in firsts.values() for name in SPARSE] + [
        (IDENTITY, first, first.site.site.d_in) for first in sites.values()
    ]
    seen: set[tuple[str, tuple[str, ...], int, int]] = set()
    for name, reference, d_sae in asked:
        l0 = reference.architecture.cost.expected_l0
        if name != IDENTITY and l0 is None:
            warnings.append(
                f"{name} at {_place(reference)} is left out: {reference.entry!r}, the first entry there, "
                "aims at no L0 to compare at."
            )
            continue
        k = d_sae if name == IDENTITY else min(d_sae, max(1, round(l0 or 0)))
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


def _size(name: str, reference: Contender) -> int:
    """Latents of a control: as many as its reference, but PCA has no more components than dimensions."""
    d_sae = reference.architecture.d_sae
    return min(d_sae, reference.site.site.d_in) if name == "control-pca" else d_sae


def _place(reference: Contender) -> str:
    model = reference.site.model
    return f"{model.hookpoint_name if model else reference.dataset.name}, d_sae {reference.architecture.d_sae}"


def _control(
    name: str, reference: Contender, d_sae: int, k: int, suite: Suite, catalog: Catalog, problems: Problems
) -> Contender | None:
    try:
        registered = catalog.architecture(name)
    except SuiteError as error:
        problems.take(error, ("controls",))
        return None
    fields = field_names(registered.spec.config)
    values = {key: value for key, value in (("d_sae", d_sae), ("k", k)) if key in fields}
    parent = reference if registered.spec.parent == "required" else None
    site, where = reference.site, suite.where("controls")
    architecture = read_architecture(
        registered, values, site.site, parent, catalog, problems,
        where=lambda key: where, label="controls", d_sae=site.site.d_in,
    )  # fmt: skip
    if architecture is None:
        return None
    return Contender(
        index=None,
        entry=name,
        point=f"d_sae{d_sae}" if name == IDENTITY else f"d_sae{d_sae}-k{k}",
        sweep={},
        where=where,
        site=site,
        dataset=reference.dataset,
        architecture=architecture,
        train=reference.train,
        parent=parent,
        control=True,
    )
