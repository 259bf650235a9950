"""Sentences that both pages share: how to read a table, what a rank means, where a number comes from."""

from __future__ import annotations

from collections.abc import Sequence

from saebench.leaderboard.names import model_title, short
from saebench.leaderboard.numbers import EN_DASH, count, size_text, spend_text
from saebench.leaderboard.read.columns import D_SAE, TableColumn
from saebench.leaderboard.read.records import Json
from saebench.leaderboard.tables.agreement.values import Certificate, Chance, Recapture, SeedScore
from saebench.leaderboard.tables.children import Against
from saebench.leaderboard.tables.equal_spend import LEAST_PROGRESS
from saebench.leaderboard.tables.ranking.verdicts import Standing
from saebench.leaderboard.tables.ranks import Ranking
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.searches import Candidate, Search
from saebench.leaderboard.tables.site import Board, Site

LEAD = (
    "Sparse autoencoders trained under one shared, metered budget and scored the same way from the stored checkpoint. "
    "Every number is a mean over training seeds with its 95 % t-interval; contenders are ranked only against others "
    "at the same sparsity, and a rank is an interval: what the seeds do not separate shares it."
)

CHILDREN = (
    "A child has had its parent's training and its own. Its control is the same parent, trained on by the same spend "
    "and with the same settings, with the parent's own data and loss: what a child has beyond it is due to the "
    "child's data and objective. Differences are child less control. Each is tested by itself, as contenders are; "
    "beside a tie stands the smallest difference that so many seeds could tell."
)
CONTROLS = "Controls: floor and ceiling, and parents trained on; not ranked"

METHOD = (
    (
        "Intervals",
        "Mean ± half-width of the 95 % Student t-interval over init seeds (separate trainings). A value without ± "
        "rests on one seed and is not ranked. The standard error of a single score, over evaluation documents, is "
        "another thing: it is in each contender's details.",
    ),
    (
        "Ranks",
        "Contenders stand in the order of their values. A rank is an interval: from 1 + the number of contenders that "
        "are separably better to the number of contenders less those that are separably worse. Two contenders are "
        "*separated*, or a *tie*, or nobody *can tell*: with one seed, with a seed missing, or off the level's price. "
        "Values are compared on a scale on which seeds spread alike (log FVU for variance explained, log KL, logit of "
        "fractions). Variances over seeds are moderated by those of all rows (Smyth 2004), degrees of freedom are "
        "Satterthwaite's, and Holm's correction (in Shaffer's form) runs over the pairs of a level: any two of equal "
        "contenders are separated in about one level of twenty. With three seeds "
        "and five contenders a difference of three standard deviations of one seed is found on 60 boards of 100, with "
        "five seeds on 92: claims want five seeds or more.",
    ),
    (
        "Matched sparsity",
        "All contenders of a level are read at one price: values a token, which is L0 and the side values that a "
        "decoder needs. It is the price near the level's at which most contenders were measured. A score within 2 % "
        "of it is taken as it is; between two measured points values are interpolated linearly in log price, by seed; "
        "beyond the measured range nothing is extrapolated, and such a contender is not ranked.",
    ),
    (
        "Ranking metric",
        "Variance explained at matched L0 gives the rank of the main table; the tables by level rank the other "
        "fidelity metrics beside it, and any column sorts.",
    ),
    (
        "Stability",
        "SFR and matched cosine come from an exact one-to-one matching of decoder directions between seeds, over the "
        "smaller dictionary; “exact” is shown where dual prices prove that no matching is better by more than 1e-6 of "
        "the total. SFR counts pairs with a cosine above 0.7; SFR alive drops latents that are dead in their own SAE "
        "first. Chance is the larger of two nulls: what random directions of the same counts reach, and what "
        "untrained samples reach (centred activations of random training tokens, disjoint parts, five draws). "
        "A corrected score is (score - chance) / (1 - chance). Pairs share seeds and are dependent, so their standard "
        "error is a jackknife over seeds, and the interval is t with seeds - 1.",
    ),
    (
        "Cost",
        "“training” counts the tokens a contender itself was trained on, which is what the budget limits; “all-in” is "
        "everything it takes to have this SAE alone: training, making its data, and all of its parent. In FLOPs and "
        "seconds it holds the model's forwards too; they read the tokens that are trained on and add no tokens.",
    ),
    (
        "Equal spend",
        "The scores of the main table are at the suite's own budget. The page's switch asks the same of other "
        "budgets, from what each record noted while it trained: FVU and L0 of one training batch at 12 log-spaced "
        "points. Every run is read at the largest spend that all contenders reached (tokens, FLOPs or seconds of "
        "their own training, or all-in), by linear interpolation in log spend, never beyond what was noted. A "
        "reading before the end of a run's schedule is marked, as its learning rate has not decayed, which a shorter "
        f"run's would have; under {LEAST_PROGRESS:.0%} of the schedule there is none. Being FVU on training batches, "
        "these numbers are noisier than the held-out scores and compare nothing between contenders trained on "
        "different data: those are ranked apart.",
    ),
    (
        "Controls",
        "Floor and ceiling without any training budget: random directions, a permuted decoder, PCA, the identity. "
        "“-continued” is the parent of a child, trained on by the child's spend. Never ranked.",
    ),
)

SEARCH = (
    "Search",
    "A contender marked “best of T by validation …” was tuned: T candidates divided one share of the budget, and the "
    "one with the best mean over init seeds on the validation part of the held-out data (one document in four) is "
    "its result. No score in this suite was taken on that part. Candidates with fewer seeds than others cannot "
    "win. The tables of searches list them all; its tokens, and its spend at equal spend, count all of them.",
)


def method(board: Board) -> tuple[tuple[str, str], ...]:
    """How to read the pages of this board."""
    tuned = any(site.searches for suite in board.suites for site in suite.sites)
    return (*METHOD[:-1], SEARCH, METHOD[-1]) if tuned else METHOD


def rank_text(standing: Standing | None) -> str:
    """`1`, `2–4` or a dash."""
    if standing is None or standing.best is None:
        return EN_DASH
    return str(standing.best) if standing.best == standing.worst else f"{standing.best}{EN_DASH}{standing.worst}"


def rank_reason(standing: Standing | None) -> str:
    """Why it has this rank, or none."""
    if standing is None:
        return "controls are not ranked"
    if standing.best is None:
        return f"cannot tell: {standing.reason}"
    tied = f"; not separated from {', '.join(standing.ties)}" if standing.ties else ""
    return f"compared with {standing.compared} at matched sparsity{tied}"


def unranked(rows: Sequence[Row]) -> list[str]:
    """Contenders that are not ranked, by reason, a line each; nothing where a table has no ranks at all."""
    if all(row.standing is None or row.standing.best is None for row in rows):
        return []
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if row.standing is not None and row.standing.best is None:
            by_reason.setdefault(str(row.standing.reason), []).append(row.label)
    return [f"not ranked: {', '.join(labels)} ({reason})" for reason, labels in by_reason.items()]


def curved(rows: Sequence[Row]) -> list[str]:
    """A line that names the rows whose decoder is not linear in the codes; nothing where there is none."""
    labels = [row.label for row in rows if row.curved]
    what = "decoder not linear in the codes: no latent of theirs is a direction"
    return [f"{what}: {', '.join(labels)}"] if labels else []


def pair_counts(ranking: Ranking) -> str:
    """`10 pairs: 4 separated, 5 ties, 1 cannot be told`."""
    verdicts = [pair.verdict for pair in ranking.pairs]
    counts = ((verdicts.count("separated"), "separated"), (verdicts.count("tie"), "tied"))
    told = [f"{number} {word}" for number, word in counts if number]
    unknown = verdicts.count("cannot tell")
    told += [f"{unknown} cannot be told"] if unknown else []
    return f"{len(verdicts)} pair{'s' * (len(verdicts) != 1)}: {', '.join(told)}"


def child_verdict(found: Against) -> str:
    """`better`, or `tie (0.004 or more could be told)`."""
    least = found.resolvable
    return f"tie ({least:.2g} or more could be told)" if found.verdict == "tie" and least is not None else found.verdict


def candidate_note(candidate: Candidate) -> str:
    """What became of a candidate."""
    if candidate.won:
        return "winner" + (f"; {candidate.reason}" if candidate.reason else "")
    return candidate.reason or ""


def search_facts(search: Search) -> str:
    """What a search tried, on what, and what it cost: one sentence."""
    better = "lowest" if search.direction == "lower" else "highest"
    seeds, cost = len(search.seeds), search.cost
    seconds = "" if cost.seconds is None else f", {spend_text(cost.seconds, 'seconds')}"
    tried = f"{search.recorded} of {search.planned}" if search.recorded < search.planned else search.planned
    on = f" of {search.on} ({count(search.samples)} tokens)" if search.on else ""
    return (
        f"{tried} candidates, the {better} {search.metric} on the validation part{on} wins, "
        f"mean over {seeds} init seed{'s' * (seeds != 1)}. The whole search trained on "
        f"{spend_text(cost.tokens, 'tokens')}, {spend_text(cost.flops, 'flops')}{seconds} a seed."
    )


def decimals_of(column: TableColumn, value: float | None) -> int:
    """Digits after the point for one value of a column."""
    return column.decimals if value is None or abs(value) < 1000 else 0


def amount_text(column: TableColumn, value: float) -> str | None:
    """An amount as tables print it: tokens in short, latents in full, bytes with their unit; None for a score."""
    if column.id == "size:stored-bytes":
        return size_text(value)
    if column.id == D_SAE.id:
        return f"{value:,.0f}"
    return count(value) if column.id.startswith("cost:") else None


def site_facts(site: Site) -> list[tuple[str, str]]:
    """What was measured, under which budget, on what: (term, text) in reading order."""
    evaluation = site.evaluation
    facts: list[tuple[str, str]] = []
    if model := site.model:
        revision = f" at {model['revision']}" if model.get("revision") else ""
        facts.append(("Model", f"{model_title(model)}{revision}, digest {short(model.get('digest'))}"))
        facts.append(
            ("Hookpoint", f"{model['hookpoint']} ({site.d_in} dimensions), context {model.get('context')} tokens")
        )
    facts.append(("Trained on", "; ".join(dataset_text(data) for data in site.training_datasets)))
    part = "test part of what is held out" if evaluation.get("part") == "test" else "held-out part"
    held_out = "; ".join(
        f"{data['name']} ({part}, {count(data.get('n_tokens'))} tokens, content {short(data.get('content'))})"
        for data in evaluation.get("datasets") or []
    )
    facts.append(("Scored on", held_out or "not recorded"))
    sizes = [
        f"{count(evaluation.get(key))} for {what}"
        for key, what in (("tokens", "fidelity"), ("loss_tokens", "losses"), ("density_tokens", "density"))
        if evaluation.get(key)
    ]
    facts.append(("Tokens asked", ", ".join(sizes) or "not recorded"))
    facts.append(("Budget", "; ".join(site.budgets) or "none"))
    seeds = ", ".join(map(str, evaluation.get("seeds") or [])) or "not recorded"
    facts.append(("Seeds", f"init {', '.join(map(str, site.seeds))}; evaluation {seeds}"))
    thresholds = {name: value for name, value in (evaluation.get("thresholds") or {}).items() if value is not None}
    if thresholds:
        facts.append(("Thresholds", ", ".join(f"{name} {value:g}" for name, value in sorted(thresholds.items()))))
    return facts


def dataset_text(data: Json) -> str:
    """A training dataset with its plugin and digests."""
    tokens = f", {count(data['n_tokens'])} tokens" if data.get("n_tokens") else ""
    return (
        f"{data['name']} ({data.get('plugin')} {data.get('version')}{tokens}, recipe {short(data.get('recipe'))}, "
        f"content {short(data.get('content'))})"
    )


def certificate_text(matching: Certificate | None) -> tuple[str, str]:
    """What is proven of a row's matchings, and the longer text on hover."""
    if matching is None:
        return EN_DASH, "no certificate in this record"
    if matching.proven == matching.pairs:
        bound = "" if matching.gap is None else f"; no better matching by more than {matching.gap:.1g} of the total"
        return "exact", f"all {matching.pairs} matchings proven optimal{bound}"
    some = f"{matching.proven} of {matching.pairs} matchings proven optimal"
    if matching.gap is None:
        return "not proven", f"{some}; no bound for the rest"
    return f"within {100 * matching.gap:.2g} %", some


def chance_text(null: Chance) -> str:
    """How a level of chance was found."""
    text = f"chance {null.value:.4f}"
    if null.low is not None and null.high is not None:
        text += f" (95 % {null.low:.4f} to {null.high:.4f}{f', {null.draws} draws' if null.draws else ''})"
    if null.n and null.m and null.d:
        what = "untrained samples of the training activations" if null.untrained else "random directions"
        text += f": {null.n:,.0f} with {null.m:,.0f} {what} in {null.d:,} dimensions"
    if null.other is not None:
        text += f"; random directions give {null.other:.4f}"
    return text


def within_chance(label: str, name: str, score: SeedScore) -> str | None:
    """That a score does not exceed chance; None where it does, or where that is not known."""
    if score.value is None or score.null is None or not score.within_chance:
        return None
    what = "untrained samples of the training activations reach" if score.null.untrained else "random directions reach"
    return f"{label}: {name} {score.value:.3f} does not exceed chance: {what} {score.null.value:.3f}."


def total_text(found: Recapture) -> tuple[str, str]:
    """Extrapolated total and its 95 % interval: `1,214` and `1,102 to 1,361`."""
    if found.estimate is None:
        return EN_DASH, ""
    interval = "" if found.low is None or found.high is None else f"{found.low:,.0f} to {found.high:,.0f}"
    return f"{found.estimate:,.0f}", interval
