"""Calls into plugins at plan time: whatever goes wrong there becomes an error that names the plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from saebench.api.errors import PluginError, SaebenchError, SuiteError, contained, describe, place
from saebench.api.specs import Findings, Problem, Site
from saebench.host import Registered
from saebench.host.fitting import misfit

T = TypeVar("T")
_LISTS = {"check": Sequence[Problem], "bases": Sequence[str]}
_ANSWERS = {**_LISTS, "inspect": Findings, "recipe": Mapping[str, Any], "site": Site}


def ask(registered: Registered[Any], what: str, call: Callable[..., T], *arguments: Any) -> T:
    """`call(*arguments)`, which is of the type that the API declares for `what`; of one that gives a list a tuple.

    Raises:
        SaebenchError: As the plugin raised it.
        SuiteError: A file that the plugin reads is not there or not readable.
        PluginError: Anything else, named as the plugin's own fault.
    """
    try:
        with contained():
            answer: Any = call(*arguments)
            if what in _LISTS:
                answer = tuple(answer)  # a generator raises while it is read
    except SaebenchError:
        raise
    except OSError as error:
        raise SuiteError(
            f"{error.filename or registered.spec.name}: cannot be read ({error.strerror or error})."
        ) from error
    except Exception as error:
        raise PluginError(
            f"{registered.spec.name} of {registered.distribution} {registered.version}: {what} raised "
            f"{describe(error)}{place(error)}. This is a bug of the plugin."
        ) from error
    if wrong := misfit(answer, _ANSWERS[what], what):
        raise PluginError(
            f"{registered.spec.name} of {registered.distribution} {registered.version}: {wrong}. This is a bug of the "
            "plugin."
        )
    return answer  # type: ignore[no-any-return]
