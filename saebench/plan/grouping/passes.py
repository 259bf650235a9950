"""Which cohorts are read together: hookpoints of one model in one forward."""

from __future__ import annotations

from collections.abc import Sequence

from saebench.cells.plan import Cohort


def form_passes(cohorts: Sequence[Cohort]) -> list[tuple[Cohort, ...]]:
    """Cohorts in passes, in an order in which every cohort comes after all that it waits for.

    One pass holds cohorts on the same model, context, dataset, data seed, batch, precision and shuffle at different
    hookpoints, of which none waits for another, not even through a third.

    Args:
        cohorts: In an order in which each comes after those it waits for.
    """
    passes: list[list[Cohort]] = []
    place: dict[str, int] = {}
    for cohort in cohorts:
        earliest = max((place[key] + 1 for key in cohort.after if key in place), default=0)
        for index in range(earliest, len(passes)):
            if _together(passes[index], cohort):
                passes[index].append(cohort)
                place[cohort.key] = index
                break
        else:
            passes.append([cohort])
            place[cohort.key] = len(passes) - 1
    return [tuple(members) for members in passes]


def _together(members: Sequence[Cohort], cohort: Cohort) -> bool:
    first = members[0]
    if first.model is None or cohort.model is None:
        return False
    same = (
        (
            one.model.digest,
            one.model.context,
            one.dataset.name,
            one.dataset.recipe,
            one.data_seed,
            one.batch,
            one.dtype,
            one.shuffle,
        )
        for one in (first, cohort)
        if one.model is not None
    )
    hooks = {member.model.hookpoint for member in members if member.model is not None}
    return next(same) == next(same) and cohort.model.hookpoint not in hooks
