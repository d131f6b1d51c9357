"""The identity providers that the sandbox can simulate, with the tokens that each issues.

The claims follow the providers' documentation, with invented values. All JWTs of a provider are signed with the same
key, so that only the settings distinguish accepted tokens from rejected ones.
"""

import difflib
from types import MappingProxyType

from app.sandbox.provider import SimulatedProvider
from app.sandbox.providers.hosted import HOSTED
from app.sandbox.providers.self_hosted import DEMO, SELF_HOSTED
from app.sandbox.providers.workloads import WORKLOADS

__all__ = ["DEMO", "NOT_VERIFIABLE", "PROVIDERS", "UnknownProvider", "simulate"]

PROVIDERS = MappingProxyType({DEMO: SELF_HOSTED[DEMO], **HOSTED, **SELF_HOSTED, **WORKLOADS})

NOT_VERIFIABLE = MappingProxyType(
    {
        "okta-org": (
            "The access tokens of Okta's org authorization server cannot be verified by other services. Use a custom "
            "authorization server (`okta`)."
        ),
        "authjs": (
            "The session tokens of Auth.js are encrypted. Let your backend sign a token of its own (`hs256`), or use "
            "the access token of the identity provider behind Auth.js."
        ),
    }
)
"""Providers whose tokens have no signature that Dialtone can verify, with an alternative for each."""


class UnknownProvider(ValueError):
    """The sandbox cannot simulate this provider. The message contains the alternative."""


def simulate(name: str, base: str) -> SimulatedProvider:
    """The provider at the URL `base`. Raises UnknownProvider."""
    if name in PROVIDERS:
        return SimulatedProvider(name, PROVIDERS[name], base)
    if name in NOT_VERIFIABLE:
        raise UnknownProvider(NOT_VERIFIABLE[name])
    near = _similar(name.lower())
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UnknownProvider(f"There is no provider {name!r}. {hint}--list prints all providers.")


def _similar(name: str) -> list[str]:
    """Up to three names that resemble this one, or whose name or title contains it."""
    titles = {key: f"{key} {provider.title}".lower() for key, provider in PROVIDERS.items() if key != DEMO}
    containing = [key for key, title in titles.items() if len(name) > 2 and name in title]
    return (containing or difflib.get_close_matches(name, [*titles, *NOT_VERIFIABLE]))[:3]
