"""Sentences that both pages share: how to read a table, what a rank means, where a number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saebench.leaderboard.pages.columns import Column
from saebench.leaderboard.pages.names import model_name
from saebench.leaderboard.pages.numbers import count, scientific

EN_DASH = "\N{EN DASH}"

LEAD = (
    "Sparse autoencoders trained under one shared, metered budget and scored the same way from the stored checkpoint. "
    "Every number is a mean over training seeds with its 95 % t-interval; contenders are ranked only against others at the same sparsity, "
    "and those that the intervals do not separate are ties."
)

METHOD = (
    ("Intervals", "Mean ± half-width of the 95 % Student t-interval over init seeds (separate trainings). A value without ± rests on one seed and is not ranked. The standard error of a single score, over evaluation sequences, is another thing: it stands in each contender's details."),
    ("Ranks", "1 + the number of contenders that are better beyond the 95 % interval of the difference. Differences are paired by init seed where both have the same seeds, else by Welch; the level holds for each pair and is not corrected for the number of pairs. “tie” marks a contender that at least one other at its level is not separated from."),
    ("Matched sparsity", "A pair is compared at one L0: the level, or the nearest L0 that both have measured, at most 20 % from it. Between two measured points values are interpolated linearly in log L0, by seed; beyond the measured range nothing is extrapolated (a score within 10 % of the L0 stands as it is)."),
    ("Ranking metric", "Variance explained at matched L0 gives the rank of the main table; the tables by level rank the other fidelity metrics beside it, and any column sorts."),
    ("Stability", "SFR and matched cosine come from an exact one-to-one matching of decoder directions between seeds, over the smaller dictionary; “exact” stands where dual prices prove that no matching is better by more than 1e-6 of the total. SFR counts pairs with a cosine above 0.7; SFR alive drops latents that are dead in their own SAE first. Chance (“null”) is what random directions of the same shape reach, and a corrected score is (score - chance) / (1 - chance). Pairs share seeds and are dependent, so their standard error is a jackknife over seeds, and the interval is t with seeds - 1."),
    ("Cost", "“training” counts the tokens a contender itself was trained on, which is what the budget limits; “all-in” adds what it took to make its data and to train its parent."),
    ("Equal spend", "The scores of the main table stand at the suite's own budget. The page's switch asks the same of other budgets, from what each record noted while it trained: FVU and L0 of one training batch at 12 log-spaced points. Every run is read at the largest spend that all contenders reached (tokens, FLOPs or seconds of their own training; “all-in” adds what their data and their parent cost), by linear interpolation in log spend, never beyond what was noted. Being FVU on training batches, these numbers are noisier than the held-out scores and compare nothing between contenders trained on different data: those are ranked apart."),
    ("Controls", "Floor and ceiling without any training budget: random directions, a permuted decoder, PCA, the identity. Never ranked."),
)  # fmt: skip

SEARCH = (
    "Search",
    "A contender marked “best of T by validation …” was tuned: T candidates divided one share of the budget, and the one with the best mean over init seeds on the validation part of the held-out data (one document in four) is its result. Nobody's score in this suite was taken on that part. Candidates with fewer seeds than others cannot win. The tables of searches list them all; its tokens, and its spend at equal spend, count all of them.",
)


def method(board: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """How to read the pages of this board."""
    tuned = any(site["searches"] for suite in board["suites"] for site in suite["sites"])
    return (*METHOD[:-1], SEARCH, METHOD[-1]) if tuned else METHOD


STREAMS = {
    "ffr-random": "random tokens (drawn uniformly from the vocabulary)",
    "ffr-text": "held-out text",
    "ffr-self": "samples of the model itself, never those trained on",
}


def spend_text(value: float | None, currency: str) -> str:
    """`150k tokens`, `3.56e+10 FLOPs` or `1.66 s`."""
    if currency == "seconds":
        return EN_DASH if value is None else f"{value:.3g} s"
    return f"{count(value)} tokens" if currency == "tokens" else f"{scientific(value)} FLOPs"


def rank_text(standing: Mapping[str, Any] | None) -> str:
    """`1`, `2 tie` or a dash."""
    if not standing or standing["rank"] is None:
        return EN_DASH
    return f"{standing['rank']} tie" if standing["ties"] else str(standing["rank"])


def rank_reason(standing: Mapping[str, Any] | None) -> str:
    """Why it has this rank, or none."""
    if not standing:
        return "controls are not ranked"
    if standing["rank"] is None:
        return str(standing["reason"])
    tied = f"; not separated from {', '.join(standing['ties'])}" if standing["ties"] else ""
    return f"compared with {standing['compared']} at matched L0{tied}"


def candidate_note(search: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    """What became of a candidate."""
    if candidate["won"]:
        return "winner" + (f"; {candidate['reason']}" if candidate["reason"] else "")
    return str(candidate["reason"] or "")


def search_facts(search: Mapping[str, Any]) -> str:
    """What a search tried, on what, and what it cost: one sentence."""
    better = "lowest" if search["direction"] == "lower" else "highest"
    seeds = len(search["seeds"])
    cost = search["cost"]
    seconds = "" if cost["seconds"] is None else f", {spend_text(cost['seconds'], 'seconds')}"
    tried = (
        f"{search['recorded']} of {search['planned']}" if search["recorded"] < search["planned"] else search["planned"]
    )
    on = f" of {search['on']} ({count(search['samples'])} tokens)" if search["on"] else ""
    return (
        f"{tried} candidates, the {better} {search['metric']} on the validation part{on} wins, mean over {seeds} init seed{'s' * (seeds != 1)}. "
        f"The whole search trained on {spend_text(cost['tokens'], 'tokens')}, {spend_text(cost['flops'], 'flops')}{seconds} a seed."
    )


def decimals_of(column: Column, value: float | None) -> int:
    """Digits after the point for one value of a column."""
    return column.decimals if value is None or abs(value) < 1000 else 0


def site_facts(site: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured, under which budget, on what: (term, text) in reading order."""
    evaluation = site["evaluation"]
    facts: list[tuple[str, str]] = []
    if model := site["model"]:
        facts.append(
            (
                "Model",
                f"{model_name(model['id'])}{' at ' + model['revision'] if model.get('revision') else ''}, digest {short(model.get('digest'))}",
            )
        )
        facts.append(
            ("Hookpoint", f"{model['hookpoint']} ({site['d_in']} dimensions), context {model.get('context')} tokens")
        )
    facts.append(("Trained on", "; ".join(dataset_text(data) for data in site["training_datasets"])))
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
    facts.append(("Budget", "; ".join(site["budgets"]) or "none"))
    facts.append(
        (
            "Seeds",
            f"init {', '.join(map(str, site['seeds']))}; evaluation {', '.join(map(str, evaluation.get('seeds') or [])) or 'not recorded'}",
        )
    )
    threshold = (evaluation.get("thresholds") or {}).get("ffr")
    streams = [text for key, text in STREAMS.items() if key in site["columns"]]
    if streams:
        over = "the threshold (not recorded)" if threshold is None else f"{threshold:g}"
        facts.append(("FFR", f"share of latents with density above {over}, on {'; '.join(streams)}"))
    return facts


def dataset_text(data: Mapping[str, Any]) -> str:
    """A training dataset with its plugin and digests."""
    tokens = f", {count(data['n_tokens'])} tokens" if data.get("n_tokens") else ""
    return f"{data['name']} ({data.get('plugin')} {data.get('version')}{tokens}, recipe {short(data.get('recipe'))}, content {short(data.get('content'))})"


def short(digest: object) -> str:
    """First 12 hex digits of a digest."""
    return str(digest)[:12] if digest else "not recorded"


def certificate_text(matching: Mapping[str, Any] | None) -> tuple[str, str]:
    """What is proven of a row's matchings, and the longer text on hover."""
    if matching is None:
        return EN_DASH, "no certificate in this record"
    gap = matching["gap"]
    if matching["proven"] == matching["pairs"]:
        bound = "" if gap is None else f"; no better matching by more than {gap:.1g} of the total"
        return "exact", f"all {matching['pairs']} matchings proven optimal{bound}"
    some = f"{matching['proven']} of {matching['pairs']} matchings proven optimal"
    return ("not proven", f"{some}; no bound for the rest") if gap is None else (f"within {100 * gap:.2g} %", some)


def chance_text(null: Mapping[str, Any]) -> str:
    """How a level of chance was found."""
    text = f"chance {null['value']:.4f}"
    if null.get("low") is not None and null.get("high") is not None:
        text += f" (95 % {null['low']:.4f} to {null['high']:.4f}"
        text += f", {null['draws']} draws)" if null.get("draws") else ")"
    if null.get("n") and null.get("m") and null.get("d"):
        text += f": {null['n']:,.0f} with {null['m']:,.0f} random directions in {null['d']:,} dimensions"
    return text


def total_text(found: Mapping[str, Any]) -> tuple[str, str]:
    """Extrapolated total and its 95 % interval: `1,214` and `1,102 to 1,361`."""
    if found["estimate"] is None:
        return EN_DASH, ""
    interval = "" if found["low"] is None or found["high"] is None else f"{found['low']:,.0f} to {found['high']:,.0f}"
    return f"{found['estimate']:,.0f}", interval
