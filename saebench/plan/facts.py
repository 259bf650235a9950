"""What the planner asks of a language model, without loading its weights. `saebench.data` answers; tests bring their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class HookpointFacts(Protocol):
    """A place to read: `path` as the model names it, `name` as the suite writes it, `d` values a token."""

    @property
    def path(self) -> str:
        """Dotted module path."""
        ...

    @property
    def name(self) -> str:
        """As the suite writes it."""
        ...

    @property
    def d(self) -> int:
        """Width."""
        ...


class ModelFacts(Protocol):
    """A language model at plan time."""

    @property
    def digest(self) -> str:
        """Digest of weights, config and tokenizer."""
        ...

    @property
    def n_parameters(self) -> int:
        """Learned values."""
        ...

    @property
    def context_limit(self) -> int | None:
        """Longest sequence, or None where there is no limit."""
        ...

    @property
    def causal(self) -> bool:
        """False for encoders, which have no next-token loss."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how its files were read, one sentence each."""
        ...

    def check_loading(self, allow_unused: Sequence[str] = (), /) -> None:
        """SuiteError where its files hold tensors that it does not use, but for those that a pattern allows."""
        ...

    def tokens_in(self, text: str, /) -> int | None:
        """Tokens of a text, without special ones; None where the tokenizer cannot be asked."""
        ...

    def hookpoint(self, name: str, /) -> HookpointFacts:
        """The hookpoint of this name; SuiteError with near misses where there is none."""
        ...

    def forward_flops_per_token(self, hookpoint: str | None = None, /) -> int:
        """FLOPs of a forward pass a token, to the hookpoint at this path or to the end."""
        ...


class ModelFactsSource(Protocol):
    """Looks models up."""

    def model(self, id: str, revision: str | None = None, /) -> ModelFacts:
        """Facts of a model; SuiteError where there is none."""
        ...

    def prove(self, id: str, revision: str | None, hookpoint: str, allow_unused: Sequence[str] = (), /) -> None:
        """Shows that splicing is exact at the hookpoint at this path; SuiteError where it is not."""
        ...
