"""Training data of cohorts that read together: stores that exist, stores that are built, rows read live."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.forward import forward_rows
from saebench.activations.live import LivePass, LiveRows
from saebench.activations.precision import rounding, rounding_remark
from saebench.activations.quota import Need, Stored, check_plan, make_room, stored
from saebench.activations.rows import StoreRows
from saebench.activations.sources.context import Meter
from saebench.activations.sources.store_needs import described, distinct_rows, needs_of
from saebench.activations.sources.token_windows import token_windows
from saebench.activations.sources.training import SourceFacts, TrainingSource
from saebench.activations.sources.vector_batches import VECTOR_ROWS, finite_batches
from saebench.activations.store import ActivationStore
from saebench.activations.token_store import TokenStore
from saebench.activations.write import StoreOrder
from saebench.api.errors import SuiteError
from saebench.artifacts import digest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from saebench.activations.shuffle import RowProvider
    from saebench.activations.sources.context import Context
    from saebench.cells.cell import ModelUse
    from saebench.cells.plan import Cohort
    from saebench.lm.model import LanguageModel


class TrainingStores:
    """Makes the training sources of a run (`RunData.training_pass`)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stores: dict[str, ActivationStore] = {}
        self._live: list[LivePass] = []
        self._coming: list[Cohort] = []

    def release(self) -> None:
        """Drops all sources."""
        self._abandon()
        self._stores.clear()

    def _abandon(self) -> None:
        """Ends the pass before: a store that it did not finish is removed."""
        for live in self._live:
            live.abandon()
        self._live.clear()

    def check_disk(self, cohorts: Sequence[Cohort]) -> None:
        """See `RunData.check_disk`."""
        steps: dict[tuple[Any, ...], list[Need]] = {}
        for cohort in cohorts:
            steps.setdefault(_pass_key(cohort), []).extend(needs_of(cohort))
        if cohorts:
            check_plan(self._folder, list(steps.values()), cohorts[0].activations.quota_gb)
        self._coming = list(cohorts)

    def open(self, cohorts: Sequence[Cohort], reads: Sequence[bool], in_use: Set[Path]) -> list[TrainingSource]:
        """See `RunData.training_pass`. Stores in the folders `in_use` are not removed."""
        if len({_pass_key(cohort) for cohort in cohorts}) > 1:
            raise ValueError("cohorts of one pass share model, context, dataset, data seed, dtype and shuffle")
        for cohort in [one for one in cohorts if one in self._coming]:
            self._coming.remove(cohort)
        self._abandon()
        read = {self._code(cohort) for cohort, reading in zip(cohorts, reads, strict=True) if reading}
        sources = self._existing(cohorts, read)
        if missing := [cohort for cohort in cohorts if self._code(cohort) not in sources]:
            self._make_room(cohorts, missing, in_use)
            for tokens in sorted({cohort.tokens for cohort in missing}):
                sources |= self._made([cohort for cohort in missing if cohort.tokens == tokens], read)
        return [sources[self._code(cohort)] for cohort in cohorts]

    def sample(self, cohort: Cohort, n: int) -> Tensor:
        """See `RunData.training_sample`. Ends a pass, as a new one does."""
        self._abandon()
        # the rows of a store and of its live source are equal, and a sample needs a few blocks of a forward
        live = replace(cohort, activations=replace(cohort.activations, source="live"))
        try:
            return (self._existing([cohort], set()) or self._made([live], set()))[self._code(cohort)].random_rows(n)
        finally:
            self._abandon()

    def _existing(self, cohorts: Sequence[Cohort], read: Set[str]) -> dict[str, TrainingSource]:
        """Sources whose stores exist, by code of the store. Rows of those in `read` are compared with their digests."""
        sources: dict[str, TrainingSource] = {}
        for cohort in cohorts:
            code = self._code(cohort)
            if cohort.model is not None and cohort.activations.source == "live":
                continue
            folder = self._context.run.activations(code)
            if (store := self._context.intact(folder, partial(self._find, folder, cohort, code in read))) is not None:
                sources.setdefault(code, self._from_store(cohort, store))
        return sources

    def _find(self, folder: Path, cohort: Cohort, rows: bool, checked: bool) -> ActivationStore | None:
        if (known := self._stores.pop(self._code(cohort), None)) is None:
            return ActivationStore.open(folder, self._key(cohort), checked=checked, rows=rows)
        if rows:
            known.prove_rows()
        return known

    def _made(self, cohorts: Sequence[Cohort], read: Set[str]) -> dict[str, TrainingSource]:
        """Sources whose rows have yet to be made, from one stream of tokens (or vectors)."""
        first = cohorts[0]
        if first.model is None:
            key = self._key(first)
            return {digest(key): self._from_store(first, self._context.store(key, partial(self._build, first, key)))}
        lm, tokens = self._context.model(first.model), self._tokens(first, first.model)
        by_hook = {cohort.model.hookpoint: cohort for cohort in cohorts if cohort.model is not None}
        lost = self._rounding(lm, tokens, list(by_hook), first.dtype)
        facts = {
            hookpoint: tokens.facts
            | {
                "forward_flops_per_token": lm.facts.forward_flops_per_token(hookpoint),
                "forward_s": 0.0,
                "rounding": lost[hookpoint],
            }
            for hookpoint in by_hook
        }
        orders = {
            hookpoint: StoreOrder(
                self._context.run.activations(self._code(cohort)),
                self._key(cohort),
                facts[hookpoint],
                described(cohort),
            )
            for hookpoint, cohort in by_hook.items()
            if first.activations.source == "store"
        }
        live = LivePass(
            lm,
            tokens,
            list(by_hook),
            dtype=first.dtype,
            block=first.shuffle,
            prefetch=self._prefetch(first),
            orders=orders,
        )
        if orders and first.activations.build == "ahead" and any(self._code(cohort) in read for cohort in cohorts):
            live.write_all(first.dataset.name)
            return {
                self._code(by_hook[hookpoint]): self._from_store(by_hook[hookpoint], store)
                for hookpoint, store in live.stores.items()
            }
        self._live.append(live)
        return {
            self._code(cohort): self._source(
                cohort, LiveRows(live, hookpoint), SourceFacts.read(facts[hookpoint]), tokens.documents
            )
            for hookpoint, cohort in by_hook.items()
        }

    @staticmethod
    def _rounding(
        lm: LanguageModel, tokens: TokenStore, hookpoints: list[str], dtype: str
    ) -> dict[str, dict[str, Any] | None]:
        """What the storage precision loses at each hookpoint, from the rows of the first forward."""
        if dtype == "float32":
            return dict.fromkeys(hookpoints)
        windows = tokens.windows(0, min(tokens.n_windows, lm.rows_per_forward(tokens.length)))
        return {name: rounding(x, dtype) for name, x in forward_rows(lm, hookpoints, windows, 0).x.items()}

    def _source(
        self, cohort: Cohort, rows: RowProvider, facts: SourceFacts, documents: frozenset[str]
    ) -> TrainingSource:
        if remark := rounding_remark(facts.rounding, described(cohort)):
            self._context.say(f"warning: {remark}")
        return TrainingSource(rows, facts, documents, shuffle=cohort.shuffle, prefetch=self._prefetch(cohort))

    def _from_store(self, cohort: Cohort, store: ActivationStore) -> TrainingSource:
        self._stores[self._code(cohort)] = store
        load = self._prefetch(cohort) > 0 or self._context.device.type != "cpu"
        rows = StoreRows(store, self._context.device, load=load)
        return self._source(cohort, rows, SourceFacts.read(store.facts), store.documents)

    def _prefetch(self, cohort: Cohort) -> int:
        asked = cohort.activations.prefetch
        return asked if asked is not None else int(self._context.device.type != "cpu")

    # --- building -----------------------------------------------------------------------------------------------------

    def _tokens(self, cohort: Cohort, model: ModelUse) -> TokenStore:
        """The token windows of a cohort, on disk: tokenised (or sampled) once, whatever reads them."""
        use = cohort.dataset
        key = self._key(cohort, tokens_alone=True)
        folder = self._context.run.activations(digest(key))
        store = self._context.intact(folder, lambda checked: TokenStore.open(folder, key, checked=checked))
        if store is None:
            meter, started = Meter(), time.perf_counter()
            windows = token_windows(self._context, use, model, "train", cohort.tokens, cohort.data_seed, meter)
            TokenStore.build(
                folder,
                key,
                windows,
                cohort.tokens,
                lambda: {
                    "dataset": use.name,
                    "token_policy": self._context.policy(use, model),
                    "data_cost": meter.to_json(),
                    "data_s": time.perf_counter() - started + meter.kept_s,
                },
                label=use.name,
            )
            store = TokenStore.open(folder, key, checked=True)
            assert store is not None
        return store

    def _build(self, cohort: Cohort, key: dict[str, Any], folder: Path) -> None:
        """Writes the store of a dataset of vectors."""
        use, meter, started = cohort.dataset, Meter(), time.perf_counter()
        vectors = self._context.vectors(use, cohort.data_seed, meter)
        with (
            ActivationStore.building(
                folder,
                key,
                d=vectors.d_in,
                dtype=cohort.dtype,
                expected_rows=distinct_rows(cohort),
                what=described(cohort),
            ) as writer,
            console.phase("activations", use.name, total=cohort.tokens, unit="tok") as bar,
        ):
            lost: dict[str, Any] | None = None
            batches = vectors.batches("train", cohort.tokens, VECTOR_ROWS, cohort.data_seed)
            for batch in finite_batches(batches, use, "train"):
                lost = rounding(batch.x, cohort.dtype) if not writer.n_rows else lost
                writer.add(batch)
                bar.update(batch.n_tokens)
            if not writer.n_rows:
                raise SuiteError(
                    f"dataset '{use.name}' (plugin {use.plugin}) has no training data. "
                    "Give it more, or name another dataset."
                )
            writer.facts = {
                "dataset": use.name,
                "content": writer.content(),
                "manifest": dict(vectors.manifest()),
                "token_policy": None,
                "data_cost": meter.to_json(),
                "data_s": time.perf_counter() - started + meter.kept_s,
                "forward_flops_per_token": 0,
                "forward_s": 0.0,
                "rounding": lost,
            }

    # --- disk ---------------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        """The folder of all stores."""
        return self._context.run.activations("any").parent

    def _make_room(self, cohorts: Sequence[Cohort], missing: Sequence[Cohort], in_use: Set[Path]) -> None:
        """Removes stores under a quota, but none that this pass or a coming one reads."""
        needed = [need for cohort in [*cohorts, *self._coming] for need in needs_of(cohort)]

        def keep(store: Stored) -> bool:
            return store.folder in in_use or any(need.met_by(store.key) for need in needed)

        existing = stored(self._folder)
        coming = {
            digest(dict(need.key)): need.n_bytes
            for cohort in missing
            for need in needs_of(cohort)
            if not any(need.met_by(store.key) for store in existing)
        }
        what = " and ".join(described(cohort) for cohort in missing)
        if make_room(self._folder, sum(coming.values()), missing[0].activations.quota_gb, keep, what):
            self._stores.clear()  # an open map would keep the disk space of what was removed

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _key(self, cohort: Cohort, *, tokens_alone: bool = False) -> dict[str, Any]:
        """Key of a cohort's activation store, or of the token windows behind it."""
        more: dict[str, Any] = {"split": "train", "seed": cohort.data_seed, "tokens": cohort.tokens}
        if not tokens_alone:
            return self._context.key(cohort.dataset, cohort.model, **more, dtype=cohort.dtype)
        key = self._context.key(cohort.dataset, cohort.model, **more, part="tokens")
        del key["hookpoint"]
        return key

    def _code(self, cohort: Cohort) -> str:
        return digest(self._key(cohort))


def _pass_key(cohort: Cohort) -> tuple[Any, ...]:
    """What cohorts of one pass have in common."""
    model = (cohort.model.digest, cohort.model.context) if cohort.model is not None else None
    return model, cohort.dataset.recipe, cohort.dataset.name, cohort.data_seed, cohort.dtype, cohort.shuffle
