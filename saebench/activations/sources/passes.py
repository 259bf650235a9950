"""Training data of cohorts that read together: which stores there are, which are built, what is read live, what makes room."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.forward import forward_rows
from saebench.activations.live import LivePass, LiveRows
from saebench.activations.precision import rounding, rounding_remark
from saebench.activations.quota import Need, Stored, check_plan, make_room, row_bytes, stored, window_bytes
from saebench.activations.rows import StoreRows
from saebench.activations.sources.context import Meter
from saebench.activations.sources.held_out_vectors import VECTOR_ROWS, demand_finite
from saebench.activations.sources.training import SourceFacts, TrainingSource
from saebench.activations.store import ActivationStore
from saebench.activations.token_store import TokenStore
from saebench.activations.write import StoreOrder
from saebench.api.errors import SuiteError
from saebench.artifacts import digest

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.activations.shuffle import RowProvider
    from saebench.activations.sources.sources import Sources
    from saebench.cells.cell import ModelUse
    from saebench.cells.plan import Cohort
    from saebench.lm.model import LanguageModel


class Passes:
    """Makes the training sources of a run (`Sources.training_pass`)."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._stores: dict[str, ActivationStore] = {}
        self._live: list[LivePass] = []
        self._coming: list[Cohort] = []

    def release(self) -> None:
        """Lets all sources go."""
        self._abandon()
        self._stores.clear()

    def _abandon(self) -> None:
        """Ends the pass before: what it did not finish goes."""
        for live in self._live:
            live.abandon()
        self._live.clear()

    def check_disk(self, cohorts: Sequence[Cohort]) -> None:
        """See `Sources.check_disk`."""
        steps: dict[tuple[Any, ...], list[Need]] = {}
        for cohort in cohorts:
            steps.setdefault(_pass_key(cohort), []).extend(self._needs(cohort))
        if cohorts:
            check_plan(self._shelf, list(steps.values()), cohorts[0].activations.quota_gb)
        self._coming = list(cohorts)

    def open(self, cohorts: Sequence[Cohort], reads: Sequence[bool]) -> list[TrainingSource]:
        """See `Sources.training_pass`."""
        if len({_pass_key(cohort) for cohort in cohorts}) > 1:
            raise ValueError("cohorts of one pass share model, context, dataset, data seed, dtype and shuffle")
        for cohort in cohorts:
            if cohort in self._coming:
                self._coming.remove(cohort)
        self._abandon()
        read = {self._code(cohort) for cohort, reading in zip(cohorts, reads, strict=True) if reading}
        sources = self._stored(cohorts, read)
        missing = [cohort for cohort in cohorts if self._code(cohort) not in sources]
        if missing:
            self._make_room(cohorts, missing)
            for tokens in sorted({cohort.tokens for cohort in missing}):
                sources |= self._made([cohort for cohort in missing if cohort.tokens == tokens], read)
        return [sources[self._code(cohort)] for cohort in cohorts]

    def _stored(self, cohorts: Sequence[Cohort], read: Set[str]) -> dict[str, TrainingSource]:
        """Sources whose stores are there, by code of the store; the rows of those in `read` are proven."""
        sources: dict[str, TrainingSource] = {}
        for cohort in cohorts:
            code = self._code(cohort)
            if cohort.model is not None and cohort.activations.source == "live":
                continue
            folder = self._sources.run.activations(code)
            store = self._sources.whole(folder, partial(self._find, folder, cohort, code in read))
            if store is not None:
                sources.setdefault(code, self._from_store(cohort, store))
        return sources

    def _find(self, folder: Path, cohort: Cohort, rows: bool, checked: bool) -> ActivationStore | None:
        if (known := self._stores.pop(self._code(cohort), None)) is None:
            return ActivationStore.open(folder, self._training_key(cohort), checked=checked, rows=rows)
        if rows:
            known.prove_rows()
        return known

    def _made(self, cohorts: Sequence[Cohort], read: Set[str]) -> dict[str, TrainingSource]:
        """Sources whose rows have yet to be made, from one stream of tokens (or vectors)."""
        first = cohorts[0]
        use = first.activations
        if first.model is None:
            code = self._code(first)
            return {code: self._from_store(first, self._build_vectors(first))}
        lm, tokens = self._sources.model(first.model), self._tokens(first, first.model)
        facts: dict[str, dict[str, Any]] = {}
        by_hook: dict[str, Cohort] = {}
        for cohort in cohorts:
            assert cohort.model is not None
            hookpoint = cohort.model.hookpoint
            by_hook[hookpoint] = cohort
            facts[hookpoint] = tokens.facts | {"forward_flops_per_token": lm.facts.forward_flops_per_token(hookpoint)}
        for hookpoint, lost in self._rounding(lm, tokens, list(by_hook), first.dtype).items():
            facts[hookpoint] |= {"rounding": lost}
        orders = {
            hookpoint: StoreOrder(
                self._sources.run.activations(self._code(cohort)),
                self._training_key(cohort),
                facts[hookpoint],
                _what(cohort),
            )
            for hookpoint, cohort in by_hook.items()
            if use.source == "store"
        }
        live = LivePass(
            lm, tokens, list(by_hook), dtype=first.dtype, block=first.shuffle, prefetch=self._prefetch(first), orders=orders
        )  # fmt: skip
        if orders and use.build == "ahead" and any(self._code(cohort) in read for cohort in cohorts):
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
        if remark := rounding_remark(facts.rounding, _what(cohort)):
            self._sources.say(f"warning: {remark}")
        return TrainingSource(
            rows, facts, documents, shuffle=cohort.shuffle, prefetch=self._prefetch(cohort), device=self._sources.device
        )

    def _from_store(self, cohort: Cohort, store: ActivationStore) -> TrainingSource:
        self._stores[self._code(cohort)] = store
        load = self._prefetch(cohort) > 0 or self._sources.device.type != "cpu"
        rows = StoreRows(store, self._sources.device, load=load)
        return self._source(cohort, rows, SourceFacts.read(store.facts), store.documents)

    def _prefetch(self, cohort: Cohort) -> int:
        asked = cohort.activations.prefetch
        return asked if asked is not None else int(self._sources.device.type != "cpu")

    def _tokens(self, cohort: Cohort, model: ModelUse) -> TokenStore:
        """The token windows of a cohort, on disk: tokenised (or sampled) once, whatever reads them."""
        use = cohort.dataset
        key = self._training_key(cohort, tokens_alone=True)
        folder = self._sources.run.activations(digest(key))
        store = self._sources.whole(folder, lambda checked: TokenStore.open(folder, key, checked=checked))
        if store is None:
            meter = Meter()
            windows = self._sources.windows(use, model, "train", cohort.tokens, cohort.data_seed, meter)
            TokenStore.build(
                folder, key, windows, self._sources.model(model), cohort.tokens,
                lambda: {"dataset": use.name, "token_policy": self._sources.policy(use, model), "data_cost": meter.to_json()},
                label=use.name,
            )  # fmt: skip
            store = TokenStore.open(folder, key, checked=True)
            assert store is not None
        return store

    def _build_vectors(self, cohort: Cohort) -> ActivationStore:
        use, key, meter = cohort.dataset, self._training_key(cohort), Meter()
        folder = self._sources.run.activations(digest(key))
        vectors = self._sources.open(use, seed=cohort.data_seed, meter=meter)
        with (
            ActivationStore.building(
                folder, key, d=vectors.d_in, dtype=cohort.dtype, expected_rows=_distinct(cohort), what=_what(cohort)
            ) as writer,
            console.phase("activations", use.name, total=cohort.tokens, unit="tok") as bar,
        ):
            lost: dict[str, Any] | None = None
            for batch in vectors.batches("train", cohort.tokens, VECTOR_ROWS, cohort.data_seed):
                demand_finite(batch, use, "train", writer.n_rows)
                lost = rounding(batch.x, cohort.dtype) if not writer.n_rows else lost
                writer.add(batch)
                bar.update(batch.n_tokens)
            if not writer.n_rows:
                raise SuiteError(
                    f"dataset '{use.name}' (plugin {use.plugin}) has no training data. Give it more, or name another dataset."
                )
            writer.facts = {
                "dataset": use.name,
                "content": writer.content(),
                "manifest": dict(vectors.manifest()),
                "token_policy": None,
                "data_cost": meter.to_json(),
                "forward_flops_per_token": 0,
                "rounding": lost,
            }
        store = ActivationStore.open(folder, key, checked=True)
        assert store is not None
        return store

    # --- room ---------------------------------------------------------------------------------------------------------

    @property
    def _shelf(self) -> Path:
        """The folder of all stores."""
        return self._sources.run.activations("any").parent

    def _needs(self, cohort: Cohort) -> list[Need]:
        key = {"recipe": cohort.dataset.recipe, "split": "train", "seed": cohort.data_seed, "tokens": cohort.tokens}
        if cohort.model is None:
            key |= {"dtype": cohort.dtype}
            return [Need(key, _distinct(cohort) * row_bytes(cohort.d_in, cohort.dtype, tokens=False), _what(cohort))]
        key |= {"model": cohort.model.digest, "context": cohort.model.context}
        windows = Need(
            key | {"part": "tokens"}, window_bytes(_distinct(cohort), cohort.model.context), f"tokens of '{cohort.dataset.name}'"
        )  # fmt: skip
        if cohort.activations.source == "live":
            return [windows]
        key |= {"hookpoint": cohort.model.hookpoint, "dtype": cohort.dtype}
        return [windows, Need(key, _distinct(cohort) * row_bytes(cohort.d_in, cohort.dtype), _what(cohort))]

    def _make_room(self, cohorts: Sequence[Cohort], missing: Sequence[Cohort]) -> None:
        """Evicts under the quota; nothing that this pass, a coming one or a cached evaluation reads."""
        needed = [need for cohort in [*cohorts, *self._coming] for need in self._needs(cohort)]
        held = self._sources.evaluation_folders

        def keep(store: Stored) -> bool:
            return store.folder in held or any(need.met_by(store.key) for need in needed)

        there = stored(self._shelf)
        coming = {
            digest(dict(need.key)): need.n_bytes
            for cohort in missing
            for need in self._needs(cohort)
            if not any(need.met_by(store.key) for store in there)
        }
        what = " and ".join(_what(cohort) for cohort in missing)
        if make_room(self._shelf, sum(coming.values()), missing[0].activations.quota_gb, keep, what):
            self._stores.clear()  # an open map would keep the room of what was removed

    # --- keys --------------------------------------------------------------------------------------------------

    def _training_key(self, cohort: Cohort, *, tokens_alone: bool = False) -> dict[str, Any]:
        """Key of a cohort's activation store, or of the token windows behind it."""
        more: dict[str, Any] = {"split": "train", "seed": cohort.data_seed, "tokens": cohort.tokens}
        if not tokens_alone:
            return self._sources.key(cohort.dataset, cohort.model, **more, dtype=cohort.dtype)
        key = self._sources.key(cohort.dataset, cohort.model, **more, part="tokens")
        del key["hookpoint"]
        return key

    def _code(self, cohort: Cohort) -> str:
        return digest(self._training_key(cohort))


def _distinct(cohort: Cohort) -> int:
    """Rows of a cohort's store: what it asks for, at most what the data holds (tokens of text are estimated from a sample)."""
    there = cohort.dataset.holds.get("train")
    return cohort.tokens if there is None else min(cohort.tokens, there + there // 10 * (cohort.model is not None))


def _what(cohort: Cohort) -> str:
    """How messages call a cohort's store."""
    at = f" at {cohort.model.hookpoint}" if cohort.model is not None else ""
    return f"activations of {cohort.tokens:,} training tokens of '{cohort.dataset.name}'{at}"


def _pass_key(cohort: Cohort) -> tuple[Any, ...]:
    """What cohorts of one pass have in common."""
    model = (cohort.model.digest, cohort.model.context) if cohort.model is not None else None
    return model, cohort.dataset.recipe, cohort.dataset.name, cohort.data_seed, cohort.dtype, cohort.shuffle
