"""Calls into plugins at plan time: whatever goes wrong there becomes an error that names the plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from saebench.api.errors import PluginError, SaebenchError, SuiteError, contained, describe
from saebench.host import Offer

T = TypeVar("T")


def ask(offer: Offer[Any], what: str, call: Callable[..., T], *arguments: Any) -> T:
    """`call(*arguments)`.

    Raises:
        SaebenchError: As the plugin raised it.
        SuiteError: A file that the plugin reads is not there or not readable.
        PluginError: Anything else, named as the plugin's own fault.
    """
    try:
        with contained():
            return call(*arguments)
    except SaebenchError:
        raise
    except OSError as error:
        raise SuiteError(f"{error.filename or offer.spec.name}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        raise PluginError(
            f"{offer.spec.name} of {offer.distribution} {offer.version}: {what} raised {describe(error)}. This is a bug of the plugin."
        ) from error
