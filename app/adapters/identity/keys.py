"""An issuer's keys: which key may verify which token. python-jose verifies the signatures.

python-jose gets one key at a time, for one algorithm, built from numbers that this module has checked. This avoids its
known faults: a key's algorithm does not bind the header's, a public key passes as an HMAC secret, sets may be mixed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from jose import jwk
from jose.exceptions import JOSEError

from app.adapters.identity import algorithms as added
from app.adapters.identity import public_keys
from app.adapters.identity.algorithms import EDDSA_ALGORITHMS, PSS_ALGORITHMS
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.public_keys import KeyForOtherUse, PublicKey, UnusableKey
from app.adapters.identity.tenants import is_issued_by
from app.vending.errors import TokenRejected
from app.vending.service_status import SkippedKey

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"}) | PSS_ALGORITHMS
EC_ALGORITHMS = MappingProxyType({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"})
HMAC_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
PUBLIC_KEY_ALGORITHMS = RSA_ALGORITHMS | set(EC_ALGORITHMS) | EDDSA_ALGORITHMS

MAX_KID_LENGTH = 256
MAX_KEYS = 100
MAX_SHOWN_KID_LENGTH = 64

_OPTIONAL_MEMBERS = ("alg", "use", "key_ops", "kid")
"""Members whose null means the same as their absence. Several providers write null, or an empty text or list."""

added.register()


class SignatureKey(Protocol):
    """The part of python-jose's key objects that Dialtone uses."""

    def verify(self, msg: bytes, sig: bytes) -> bool: ...


class UnknownKey(Exception):
    """The key set has no key for the token's `kid` and `alg`."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A usable public key or shared secret, with one python-jose object for each algorithm that it may verify."""

    kid: str | None
    checks: Mapping[str, SignatureKey]
    public: frozenset[tuple[str, str]] = frozenset()
    """The key itself, to recognize a key that a set contains twice. Empty for a shared secret."""
    issuer: str | None = None
    """The only issuer whose tokens it may verify: an `iss`, or a template such as `https://example.com/{tenantid}`."""


class KeySet:
    """The keys of one issuer. Immutable: cached results compare it by identity to detect a newer set."""

    def __init__(self, keys: Iterable[VerificationKey], skipped: Iterable[SkippedKey] = ()) -> None:
        self._keys = tuple(keys)
        self.skipped = tuple(skipped)
        """Keys of the issuer's document that are not used."""
        self.have_issuers = any(key.issuer is not None for key in self._keys)
        """Whether `check_issuer` may reject a token. Most key sets name no issuers."""

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[VerificationKey]:
        return iter(self._keys)

    def has(self, algorithm: str, kid: str | None) -> bool:
        """Whether a key may verify tokens with this `alg` and `kid`."""
        return bool(self._fitting(algorithm, kid))

    def choose(self, algorithm: str, kid: str | None) -> SignatureKey:
        """The key for this `alg` and `kid`. Raises UnknownKey if there is none, TokenRejected if several match."""
        fitting = self._fitting(algorithm, kid)
        if not fitting:
            raise UnknownKey
        if len(fitting) > 1 and len({(key.public, key.issuer) for key in fitting}) > 1:
            raise TokenRejected("ambiguous_key")
        return fitting[0].checks[algorithm]

    def _fitting(self, algorithm: str, kid: str | None) -> list[VerificationKey]:
        fitting = [
            key for key in self._keys if algorithm in key.checks and (kid is None or key.kid is None or key.kid == kid)
        ]
        if kid is None or len(fitting) < 2:
            return fitting
        return [key for key in fitting if key.kid == kid] or fitting  # a key without a kid is only a candidate

    def check_issuer(self, chosen: SignatureKey, iss: str) -> None:
        """Raises TokenRejected if the chosen key is for tokens of another issuer."""
        issuers = {key.issuer for key in self._keys if any(own is chosen for own in key.checks.values())}
        if not all(issuer is None or is_issued_by(issuer, iss) for issuer in issuers):
            raise TokenRejected("key_of_another_issuer")


def check_signature(token: CompactJws, key: SignatureKey) -> None:
    """Raises TokenRejected unless the signature is valid, whatever python-jose raises."""
    try:
        is_good = key.verify(token.signing_input, token.signature)
    except Exception as error:
        raise TokenRejected("bad_signature") from error
    if is_good is not True:
        raise TokenRejected("bad_signature")


def from_document(document: dict[str, Any], algorithms: frozenset[str]) -> KeySet:
    """The usable keys of a JWK set, or of an object of PEM texts by `kid`. Raises ValueError for anything else."""
    is_pem = [isinstance(value, str) and value.startswith("-----BEGIN ") for value in document.values()]
    if "keys" in document or not any(is_pem):
        return from_jwks(document, algorithms)

    def key_of(item: tuple[str, Any]) -> VerificationKey:
        kid, pem = item
        if not isinstance(pem, str):
            raise UnusableKey("not a PEM text")
        return _verification_key(_checked_kid(kid), public_keys.from_pem(pem), algorithms)

    return _usable(list(document.items()), key_of, kid_of=lambda item: item[0])


def from_jwks(document: dict[str, Any], algorithms: frozenset[str]) -> KeySet:
    """The usable keys of a JWK set. The others are skipped, with a reason. Raises ValueError for an invalid set."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("not a JWK set")  # noqa: TRY004 - one kind of failure for the caller
    return _usable(
        entries,
        lambda entry: _from_jwk(entry, algorithms),
        kid_of=lambda entry: entry.get("kid") if isinstance(entry, dict) else None,
    )


def from_pem(pem: str, algorithms: frozenset[str]) -> KeySet:
    """A key set of one public key or certificate in PEM. Raises ValueError if it is unusable."""
    return KeySet([_verification_key(None, public_keys.from_pem(pem), algorithms)])


def checked_secret(secret: bytes) -> bytes:
    """The shared secret. Raises ValueError if it is shorter than 32 bytes, or a key of another kind."""
    if len(secret) < 32:
        raise ValueError("a shared secret must have 32 bytes or more")
    try:
        jwk.construct(secret, "HS256")
    except JOSEError:  # every reader of the public key could sign tokens
        raise ValueError("is a public key or a certificate, not a shared secret; set the PEM instead") from None
    return secret


def from_secret(secret: bytes, algorithms: frozenset[str], previous: bytes | None = None) -> KeySet:
    """A key set of one shared secret, and of its former value during a rotation. Tokens do not name which.

    Raises ValueError for a secret that `checked_secret` does not accept.
    """
    secrets = [checked_secret(one) for one in (secret, previous) if one is not None]
    names = algorithms & HMAC_ALGORITHMS
    checks = {name: _RotatedSecret([jwk.construct(one, name) for one in secrets]) for name in names}
    return KeySet([VerificationKey(None, checks)])


class _RotatedSecret:
    """A shared secret with its former values."""

    def __init__(self, keys: Sequence[SignatureKey]) -> None:
        self._keys = keys

    def verify(self, msg: bytes, sig: bytes) -> bool:
        return any(key.verify(msg, sig) for key in self._keys)


def _usable(entries: list[Any], key_of: Callable[[Any], VerificationKey], kid_of: Callable[[Any], object]) -> KeySet:
    if len(entries) > MAX_KEYS:
        raise ValueError(f"not a key set of at most {MAX_KEYS} keys")
    by_kid: dict[str | None, list[VerificationKey]] = defaultdict(list)
    skipped: list[SkippedKey] = []
    for entry in entries:
        try:
            key = key_of(entry)
        except UnusableKey as error:
            skipped.append(_skipped(kid_of(entry), str(error), is_fault=not isinstance(error, KeyForOtherUse)))
        else:
            by_kid[key.kid].append(key)
    keys: list[VerificationKey] = []
    for kid, group in by_kid.items():
        merged = _merged(group)
        # Keys without a `kid` are compared when a token is verified.
        clear = merged if kid is None else _unambiguous(merged)
        keys += clear
        if len(clear) < len(merged):
            skipped.append(_skipped(kid, "another key has the same kid and algorithm", is_fault=True))
    return KeySet(keys, skipped)


def _merged(keys: list[VerificationKey]) -> list[VerificationKey]:
    """The keys of one `kid`, each once. A key that is listed twice has the algorithms of both entries."""
    checks: dict[tuple[frozenset[tuple[str, str]], str | None], dict[str, SignatureKey]] = {}
    for key in keys:
        checks.setdefault((key.public, key.issuer), {}).update(key.checks)
    return [VerificationKey(keys[0].kid, own, public, issuer) for (public, issuer), own in checks.items()]


def _unambiguous(keys: list[VerificationKey]) -> list[VerificationKey]:
    """Different keys of one `kid`, without the algorithms that several of them have.

    RFC 7517 section 4.5 allows one `kid` for keys of different types. For one algorithm, the choice would be arbitrary.
    """
    names = [name for key in keys for name in key.checks]
    own = [{name: check for name, check in key.checks.items() if names.count(name) == 1} for key in keys]
    return [replace(key, checks=checks) for key, checks in zip(keys, own, strict=True) if checks]


def _from_jwk(entry: Any, algorithms: frozenset[str]) -> VerificationKey:
    """Raises UnusableKey if the entry is invalid or fits none of the algorithms."""
    if not isinstance(entry, dict):
        raise UnusableKey("not a JSON object")
    entry = {name: value for name, value in entry.items() if name not in _OPTIONAL_MEMBERS or not _is_empty(value)}
    kid = _checked_kid(entry.get("kid"))
    _check_use(entry)
    own = entry.get("alg")
    if own is not None and own not in algorithms:
        raise KeyForOtherUse("its alg is not an allowed algorithm")
    issuer = entry.get("issuer")
    if issuer is not None and not isinstance(issuer, str):
        raise UnusableKey("its issuer is not text")
    allowed = algorithms if own is None else frozenset({own})
    return replace(_verification_key(kid, public_keys.from_jwk(entry), allowed), issuer=issuer)


def _checked_kid(kid: object) -> str | None:
    """Some providers write a number (RFC 7517 section 4.5 requires text). Raises UnusableKey."""
    if type(kid) is int:
        kid = str(kid)
    if kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_LENGTH):
        return kid
    raise UnusableKey(f"its kid is not a text of at most {MAX_KID_LENGTH} characters")


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [])


def _check_use(entry: dict[str, Any]) -> None:
    """Raises UnusableKey if `use` or `key_ops` exclude verification (RFC 7517 sections 4.2 and 4.3)."""
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not isinstance(entry.get("alg", ""), str):
        raise UnusableKey("its key_ops is not a list, or its alg is not text")
    if entry.get("use", "sig") != "sig" or "verify" not in operations:
        raise KeyForOtherUse("it is not for signatures, by its use or key_ops")


def _verification_key(kid: str | None, public: PublicKey, algorithms: frozenset[str]) -> VerificationKey:
    """Raises UnusableKey if the key fits none of the algorithms."""
    match public["kty"]:
        case "RSA":
            able = RSA_ALGORITHMS
        case "EC":
            able = frozenset(name for name, curve in EC_ALGORITHMS.items() if curve == public["crv"])
        case _:
            able = EDDSA_ALGORITHMS
    try:
        checks = {name: jwk.construct(public, name) for name in able & algorithms}
    except (ValueError, JOSEError):
        raise UnusableKey("its numbers are invalid") from None
    if not checks:
        raise KeyForOtherUse("it fits none of the allowed algorithms")
    return VerificationKey(kid, checks, frozenset(public.items()))


def _skipped(kid: object, reason: str, *, is_fault: bool) -> SkippedKey:
    """The `kid` is the provider's text, so only a short part of it in ASCII is shown."""
    shown = ascii(kid).strip("'")[:MAX_SHOWN_KID_LENGTH] if isinstance(kid, str | int) else None
    return SkippedKey(shown, reason, is_fault)
