"""Reads a token, and checks everything that precedes its claims: syntax, issuer, header, key and signature."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from app.adapters.identity import load_balancer
from app.adapters.identity.claims import Issuer
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.issuers import Issuers
from app.adapters.identity.keys import MAX_KID_LENGTH, KeySet, SignatureKey, UnknownKey, check_signature
from app.vending.errors import TokenRejected

REFUSED_HEADERS = frozenset({"crit", "b64", "zip", "enc"})

KnownHeaders = Mapping[bytes, tuple[Issuer, str, str | None]]
"""The issuer, `alg` and `kid` of tokens whose signature was valid, by the encoded header."""


class UnverifiedToken(NamedTuple):
    """A token whose syntax, issuer and header are valid. Its signature and claims were not checked."""

    token: CompactJws
    claims: dict[str, Any]
    iss: str
    issuer: Issuer
    algorithm: str
    kid: str | None


def read(
    unverified_token: str,
    issuers: Issuers,
    known_headers: KnownHeaders,
    types: frozenset[str] | None = None,
    request_header: str | None = None,
) -> UnverifiedToken:
    """Read the token and run every check that needs no key. Raises TokenRejected.

    `types`: allowed `typ` of logout tokens; None for access tokens, whose types the issuer allows.
    """
    own = None if request_header is None else issuers.of_header(request_header)
    if own is not None and own.signer is not None:
        try:
            return _read_of_load_balancer(unverified_token, own, own.signer)
        except TokenRejected as refusal:
            issuers.describe(refusal, own)
            raise
    token = CompactJws.parse(unverified_token, issuers.max_token_length)
    known = known_headers.get(token.encoded_header) if types is None else None
    decoded_header = token.header() if known is None else None
    claims = token.claims()
    iss, issuer = issuers.of(claims, is_access_token=types is None)
    try:
        if types is None:
            check_request_header(issuer, request_header)
        if issuer.signer is not None:
            # A load balancer signs no logout tokens. Another customer's could sign one with the same key.
            raise TokenRejected("wrong_signer")
        check_length(unverified_token, issuer)
        if known is not None and known[0] is issuer:
            return UnverifiedToken(token, claims, iss, issuer, known[1], known[2])
        algorithm, kid = checked_header(decoded_header or token.header(), issuer, types or issuer.token_types)
    except TokenRejected as refusal:
        issuers.describe(refusal, issuer, is_logout_token=types is not None)
        raise
    return UnverifiedToken(token, claims, iss, issuer, algorithm, kid)


def _read_of_load_balancer(unverified_token: str, issuer: Issuer, signer: str) -> UnverifiedToken:
    token = load_balancer.parse(unverified_token, issuer.max_token_length)
    header = token.header()
    algorithm, kid = checked_header(header, issuer, issuer.token_types)
    claims = claims_of_load_balancer(token, header, issuer, signer)
    return UnverifiedToken(token, claims, issuer.issuer, issuer, algorithm, kid)


def claims_of_load_balancer(token: CompactJws, header: dict[str, Any], issuer: Issuer, signer: str) -> dict[str, Any]:
    """The claims of a load balancer's token. Raises TokenRejected for another signer or issuer."""
    claims = load_balancer.claims_of(token, header, signer)
    if claims.get("iss") != issuer.issuer:
        raise TokenRejected("unknown_issuer")
    return claims


def check_request_header(issuer: Issuer, request_header: str | None) -> None:
    if issuer.header != request_header:
        raise TokenRejected("wrong_header")


def check_length(unverified_token: str, issuer: Issuer) -> None:
    if len(unverified_token) > issuer.max_token_length:
        raise TokenRejected("too_long")


def checked_header(header: dict[str, Any], issuer: Issuer, types: frozenset[str]) -> tuple[str, str | None]:
    """`alg` and `kid`. `jku`, `x5u`, `x5c` and `jwk` are never read: a token must not supply its own key."""
    algorithm = algorithm_of(header, issuer)
    kid = kid_of(header)
    check_extensions(header)
    check_type(header, types)
    return algorithm, kid


def algorithm_of(header: dict[str, Any], issuer: Issuer) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise TokenRejected("algorithm_not_allowed")
    return algorithm


def kid_of(header: dict[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise TokenRejected("bad_kid")
    return kid


def check_extensions(header: dict[str, Any]) -> None:
    if not REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("unsupported_header")


def check_type(header: dict[str, Any], types: frozenset[str]) -> None:
    """Case does not matter, and `application/` may be omitted (RFC 7515 section 4.1.9)."""
    typ = header.get("typ")
    if typ is not None and not (isinstance(typ, str) and typ.lower().removeprefix("application/") in types):
        raise TokenRejected("wrong_type")


def key_of(unverified: UnverifiedToken, keys: KeySet) -> SignatureKey:
    """The key that the token's header names. Raises UnknownKey or TokenRejected."""
    key = keys.choose(unverified.algorithm, unverified.kid)
    if keys.have_issuers:
        keys.check_issuer(key, unverified.iss)
    return key


async def check_with_keys(unverified: UnverifiedToken, check_claims: Callable[[UnverifiedToken], object]) -> KeySet:
    """Check the signature, and return the key set that contains the key. Fetches it if necessary.

    If the key is unknown, the claims are checked first: a token that no key could make valid causes no fetch.

    Raises TokenRejected, IdentityUnavailable or SigningKeyPending.
    """
    keys = await unverified.issuer.keys.current()
    try:
        key = key_of(unverified, keys)
    except UnknownKey:
        check_claims(unverified)
        keys = await unverified.issuer.keys.refresh_for((unverified.algorithm, unverified.kid))
        try:
            key = key_of(unverified, keys)
        except UnknownKey:
            raise TokenRejected("unknown_key") from None
    check_signature(unverified.token, key)
    return keys
