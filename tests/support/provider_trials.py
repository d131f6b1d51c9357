"""Verifies tokens of every provider with the issuers in the documentation.

`python -m tests.support.provider_trials` prints how many valid tokens were accepted and how many others were rejected.
"""

import asyncio
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from joserfc import jws, jwt
from joserfc.jwk import OctKey, OKPKey

from app.adapters.http_client import HttpClients
from app.adapters.identity.claims import LOGOUT_EVENT
from app.adapters.identity.verifier import TokenVerifier
from app.composition.issuers import KeySetRegistry
from app.config.file import ConfigFile, resolve
from app.vending.errors import TokenRejected
from app.vending.models import Platform
from app.vending.policy import Allowance
from tests.support.provider_tokens import HOSTED, TYP, Claims, Provider
from tests.support.self_hosted_tokens import APPLICATIONS, PROXIES, SELF_HOSTED, WORKLOADS
from tests.support.tokens import ec_key, rsa_key
from tests.support.verification import SECRET, now

DOCS = Path(__file__).parents[2] / "docs"
PROVIDERS: dict[str, Provider] = HOSTED | SELF_HOSTED | PROXIES | WORKLOADS | APPLICATIONS
ALLOWANCE = Allowance("1293384261075731499", dict.fromkeys(Platform, timedelta(hours=1)))

_KEY_SOURCES = ("jwks_url", "discovery_url", "ca_file", "pem_file", "secret_env")


class Trial(NamedTuple):
    right: int
    refused: list[str]
    """The kinds of valid tokens that were rejected, with the reason."""
    wrong: int
    accepted: list[str]
    """The kinds of invalid tokens that were accepted."""


def documented_tables(page: str) -> Iterator[dict[str, Any]]:
    """The tables of issuers in a page below docs/, or in all pages of a folder."""
    path = DOCS / page
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        for block in re.findall(r"```toml\n(.*?)```", file.read_text(), re.DOTALL):
            yield from tomllib.loads(block).get("issuers", [])


@cache
def _key(algorithm: str) -> Any:
    match algorithm:
        case "RS256":
            return rsa_key()
        case "ES256":
            return ec_key()
        case "ES384":
            return ec_key("P-384", "ec384")
        case "EdDSA":
            return OKPKey.generate_key("Ed25519", {"kid": "ed"})
        case _:
            return OctKey.import_key(SECRET)


def verifier_of(table: dict[str, Any], algorithm: str) -> TokenVerifier:
    """A verifier of the table's issuer, with a key of the tests instead of the provider's."""
    own = {name: value for name, value in table.items() if name not in _KEY_SOURCES}
    if algorithm == "HS256":
        own["secret_env"] = "APP_SECRET"
    else:
        own["pem"] = _key(algorithm).as_pem(private=False).decode()
    resolved = resolve(ConfigFile.model_validate({"issuers": [own]}), ALLOWANCE, {"APP_SECRET": SECRET}.get)
    return TokenVerifier(KeySetRegistry(HttpClients("dialtone/test"), time.monotonic).build_issuers(resolved), now)


def token_of(provider: Provider, changes: Claims) -> str:
    moment = int(time.time())
    claims: Claims = {"iat": moment - 5, "exp": moment + 3600, TYP: provider.typ or ...} | provider.claims | changes
    given = {name: value for name, value in claims.items() if value is not ...}
    header = {"alg": provider.algorithm, "kid": "k1"} | ({"typ": given.pop(TYP)} if TYP in given else {})
    return jwt.encode(header, given, _key(provider.algorithm), [provider.algorithm])


def wrong_tokens(provider: Provider) -> Iterator[tuple[str, str]]:
    """Tokens with the provider's signature that its issuer must reject, by kind."""
    moment = int(time.time())
    everywhere: dict[str, Claims] = {
        "expired": {"exp": moment - 3600},
        "not yet valid": {"nbf": moment + 3600},
        "without an expiry": {"exp": ...},
        "logout token": {"events": {LOGOUT_EVENT: {}}, "jti": "j"},
        "another issuer": {"iss": "https://evil.example.com"},
        "empty subject": {"sub": "", "oid": "", "uid": "", "user_id": ""},
    }
    for kind, changes in (everywhere | provider.wrong).items():
        yield kind, token_of(provider, changes)
    content = jws.extract_compact(token_of(provider, {}).encode()).payload
    header = {"alg": provider.algorithm, "kid": "k1"}
    stranger = _stranger(provider.algorithm)
    yield "another key", jws.serialize_compact(header, content, stranger, algorithms=[provider.algorithm])


@cache
def _stranger(algorithm: str) -> Any:
    """Another key of the same type."""
    match algorithm:
        case "RS256":
            return rsa_key("stranger")
        case "HS256":
            return OctKey.import_key("x" * 32)
        case "EdDSA":
            return OKPKey.generate_key("Ed25519")
        case _:
            return ec_key(_key(algorithm).curve_name, "stranger")


async def verify_tokens(provider: Provider, table: dict[str, Any]) -> Trial:
    """Verify the provider's valid tokens, and the tokens that must be rejected."""
    verifier = verifier_of(table, provider.algorithm)
    refused, accepted = [], []
    right: dict[str, Claims] = {"usual": {}} | provider.right
    for kind, changes in right.items():
        try:
            user = await verifier.verify(token_of(provider, changes), provider.header)
        except TokenRejected as error:
            refused.append(f"{kind}: {error.reason}")
        else:
            if (user.subject, user.scopes) != (provider.subject, frozenset(provider.scopes.split())):
                refused.append(f"{kind}: the user is {user.subject} with the scopes {' '.join(sorted(user.scopes))}")
    wrong = list(wrong_tokens(provider))
    for kind, unverified_token in wrong:
        try:
            await verifier.verify(unverified_token, provider.header)
        except TokenRejected:
            continue
        accepted.append(kind)
    return Trial(len(right), refused, len(wrong), accepted)


async def report() -> list[str]:
    """A table of the providers, with the kinds of invalid tokens that were accepted."""
    lines = [f"{'provider':<18} {'right accepted':>14} {'wrong rejected':>14}"]
    for table in documented_tables("identity-providers"):
        name = table["provider"]
        if name in PROVIDERS:
            trial = await verify_tokens(PROVIDERS[name], table)
            right, wrong = trial.right - len(trial.refused), trial.wrong - len(trial.accepted)
            counts = f"{f'{right} of {trial.right}':>14} {f'{wrong} of {trial.wrong}':>14}"
            lines.append(" ".join([f"{name:<18} {counts}", *trial.accepted]))
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(asyncio.run(report())) + "\n")
