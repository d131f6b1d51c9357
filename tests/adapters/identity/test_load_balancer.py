"""Tokens of AWS load balancers: padding, the exact signer, and keys that are fetched by `kid`."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.adapters.http_client import HttpClient
from app.adapters.identity import load_balancer
from app.adapters.identity.claims import LOGOUT_EVENT, Issuer
from app.adapters.identity.diagnosis.explain import TokenExplainer
from app.adapters.identity.key_sets import COOLDOWN_SECONDS, HARD_LIMIT_SECONDS, KeySetLocation
from app.adapters.identity.load_balancer_keys import MAX_CACHED_KEYS, MAX_FETCHES, LoadBalancerKeySource
from app.adapters.identity.unknown_keys import MAX_PENDING
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import LogoutTokenRejected, SigningKeyPending, TokenRejected
from tests.support.http_server import serve
from tests.support.tokens import AUDIENCE, ec_key, rsa_key, token
from tests.support.verification import fixed_keys, now

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/phones/0123456789abcdef"
OTHER_ARN = ARN.replace("123456789012", "210987654321")
ISSUER, CLIENT = "https://cognito-idp.eu-west-1.amazonaws.com/pool", "client-1"
BEARER_ISSUER = "https://id.example.com"


def kid(number: int) -> str:
    return str(UUID(int=number))


def padded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def alb_token(
    user: str = "alice", *, key: Any = None, payload: dict[str, Any] | None = None, pad: bool = True, **header: Any
) -> str:
    """A token as the load balancer writes it: in base64url with padding, which the signature covers."""
    exp = int(time.time()) + 120
    own = {"typ": "JWT", "alg": "ES256", "kid": kid(1), "iss": ISSUER, "client": CLIENT, "signer": ARN, "exp": exp}
    own = {name: value for name, value in (own | header).items() if value is not ...}
    claims = {"sub": user, "email": "alice@example.com"} | (payload or {})
    signing_input = f"{padded(json.dumps(own).encode())}.{padded(json.dumps(claims).encode())}"
    signing_input = signing_input if pad else signing_input.replace("=", "")
    private: Any = (key or ec_key("P-256", "alb")).private_key
    r, s = utils.decode_dss_signature(private.sign(signing_input.encode(), ec.ECDSA(hashes.SHA256())))
    signature = padded(r.to_bytes(32) + s.to_bytes(32))
    return f"{signing_input}.{signature if pad else signature.replace('=', '')}"


@dataclass
class RegionalKeys:
    """The regional host of AWS's keys. `status` answers every request with it."""

    keys: dict[str, str] = field(
        default_factory=lambda: {kid(1): ec_key("P-256", "alb").as_pem(private=False).decode()}
    )
    status: int | None = None
    asked: list[str] = field(default_factory=list)
    time: float = 1000.0

    def app(self) -> Starlette:
        async def key(request: Request) -> Response:
            name = request.path_params["name"]
            self.asked.append(name)
            await asyncio.sleep(0.01)
            if self.status is not None:
                return Response("no", status_code=self.status)
            return Response(self.keys[name]) if name in self.keys else Response("<Error/>", status_code=403)

        return Starlette(routes=[Route("/{name:path}", key)])


@asynccontextmanager
async def verifying(regional: RegionalKeys) -> AsyncIterator[TokenVerifier]:
    """A verifier of one load balancer, beside an issuer of bearer tokens."""
    async with HttpClient("dialtone/test") as client, serve(regional.app()) as url:
        algorithms = frozenset({"ES256"})
        location = KeySetLocation(ISSUER, algorithms, url)
        keys = LoadBalancerKeySource(location, client, lambda: regional.time)
        header = load_balancer.HEADER
        issuer = Issuer(ISSUER, frozenset({CLIENT}), algorithms, keys, header=header, signer=ARN)
        bearer = Issuer(BEARER_ISSUER, frozenset({AUDIENCE}), frozenset({"RS256"}), fixed_keys(rsa_key()))
        yield TokenVerifier((issuer, bearer), now)


async def reason(verifier: TokenVerifier, unverified_token: str, header: str | None = load_balancer.HEADER) -> str:
    try:
        await verifier.verify(unverified_token, header)
    except TokenRejected as refusal:
        return refusal.reason
    except SigningKeyPending:
        return "pending"
    return "accepted"


def test_keys_are_only_at_the_regional_host_of_aws() -> None:
    assert load_balancer.keys_url(ARN) == "https://public-keys.auth.elb.eu-west-1.amazonaws.com"
    with pytest.raises(ValueError, match="not the ARN"):
        load_balancer.keys_url("arn:aws:elasticloadbalancing:evil.example.com/:1:loadbalancer/app/x/1")


@pytest.mark.parametrize("pad", [True, False])
async def test_token_of_the_load_balancer_is_accepted(*, pad: bool) -> None:
    async with verifying(RegionalKeys()) as verifier:
        unverified_token = alb_token(pad=pad)
        assert ("=" in unverified_token) is pad

        principal = await verifier.verify(unverified_token, load_balancer.HEADER)

    assert (principal.issuer, principal.subject) == (ISSUER, "alice")


async def test_each_key_is_fetched_once() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        await asyncio.gather(*(verifier.verify(alb_token(f"u{n}"), load_balancer.HEADER) for n in range(20)))
        regional.time += HARD_LIMIT_SECONDS
        await verifier.verify(alb_token("again"), load_balancer.HEADER)

        assert regional.asked == [kid(1)]


async def test_key_is_fetched_again_after_a_day() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        await verifier.verify(alb_token(), load_balancer.HEADER)
        regional.time += HARD_LIMIT_SECONDS + 1
        await verifier.verify(alb_token(), load_balancer.HEADER)

    assert len(regional.asked) == 2


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "another load balancer": ({"signer": OTHER_ARN}, "wrong_signer"),
    "prefix of the ARN": ({"signer": ARN[:-1]}, "wrong_signer"),
    "no signer": ({"signer": ...}, "wrong_signer"),
    "list of signers": ({"signer": [ARN]}, "wrong_signer"),
    "another client": ({"client": "client-2"}, "wrong_audience"),
    "no client": ({"client": ...}, "no_audience"),
    "no client, audience of the user's claims": ({"client": ..., "payload": {"aud": CLIENT}}, "no_audience"),
    "another client, audience of the user's claims": (
        {"client": "client-2", "payload": {"aud": CLIENT}},
        "wrong_audience",
    ),
    "another issuer": ({"iss": "https://other.example.com"}, "unknown_issuer"),
    "the bearer issuer": ({"iss": BEARER_ISSUER}, "unknown_issuer"),
    "no issuer": ({"iss": ...}, "unknown_issuer"),
    "another issuer in the claims": ({"payload": {"iss": BEARER_ISSUER}}, "unknown_issuer"),
    "expired": ({"exp": 1}, "expired"),
    "expired, later in the claims": ({"exp": 1, "payload": {"exp": 9_999_999_999}}, "expired"),
    "no expiry": ({"exp": ...}, "no_expiry"),
    "no user": ({"payload": {"sub": ""}}, "bad_subject"),
    "other algorithm": ({"alg": "RS256"}, "algorithm_not_allowed"),
    "no algorithm": ({"alg": "none"}, "algorithm_not_allowed"),
    "key of another load balancer's region": ({"kid": kid(2)}, "unknown_key"),
    "signed by another key": ({"key": ec_key("P-256", "other")}, "bad_signature"),
    "path in the kid": ({"kid": f"../{kid(1)}"}, "unknown_key"),
    "URL in the kid": ({"kid": "https://evil.example.com/"}, "unknown_key"),
    "query in the kid": ({"kid": f"{kid(1)}?x"}, "unknown_key"),
    "line end in the kid": ({"kid": f"{kid(1)}\n"}, "unknown_key"),
    "no kid": ({"kid": ...}, "unknown_key"),
}


@pytest.mark.parametrize(("changes", "expected"), REJECTED.values(), ids=REJECTED.keys())
async def test_other_token_is_rejected(changes: dict[str, Any], expected: str) -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        assert await reason(verifier, alb_token(**changes)) == expected

    assert set(regional.asked) <= {kid(1), kid(2)}


async def test_changed_spelling_is_rejected() -> None:
    async with verifying(RegionalKeys()) as verifier:
        right = alb_token("bob")
        header, payload, signature = right.split(".")
        assert header.endswith("=") or payload.endswith("=")
        spellings = [
            f"{header.rstrip('=')}.{payload.rstrip('=')}.{signature}",
            f"{header}=.{payload}.{signature}",
            f"{header}.{payload}====.{signature}",
            f"={header}.{payload}.{signature}",
            f"{header}.{payload}.{signature.rstrip('=')}=",
            f"{header}.{payload}.",
            f"{header}.{payload}",
        ]

        assert "accepted" not in [await reason(verifier, spelling) for spelling in spellings]
        assert await reason(verifier, right) == "accepted"


async def test_token_is_accepted_only_in_its_header() -> None:
    async with verifying(RegionalKeys()) as verifier:
        for pad in (True, False):
            unverified_token = alb_token(pad=pad, payload={"iss": ISSUER, "aud": CLIENT, "exp": time.time() + 60})
            assert await reason(verifier, unverified_token) == "accepted"
            assert await reason(verifier, unverified_token, None) in ("not_base64url", "wrong_header")


async def test_padding_is_not_accepted_from_other_issuers() -> None:
    async with verifying(RegionalKeys()) as verifier:
        good = token()
        header, payload, signature = (part + "=" * (-len(part) % 4) for part in good.split("."))

        assert await reason(verifier, good, None) == "accepted"
        assert await reason(verifier, f"{header}.{payload}.{signature}", None) == "not_base64url"
        assert await reason(verifier, good) == "algorithm_not_allowed"


async def test_load_balancer_of_another_customer_cannot_log_users_out() -> None:
    """Its user's claims can form a logout token, and it signs them with the region's key."""
    at = int(time.time())
    claims = {"iss": ISSUER, "aud": CLIENT, "iat": at, "exp": at + 60, "jti": "1", "events": {LOGOUT_EVENT: {}}}
    forged = alb_token(payload=claims, signer=OTHER_ARN, pad=False)
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        await verifier.verify(alb_token(), load_balancer.HEADER)

        with pytest.raises(LogoutTokenRejected) as refusal:
            await verifier.verify_logout(forged)

    assert refusal.value.reason == "wrong_signer"


# -- limits of the fetches ------------------------------------------------------------------------------------------


async def test_flood_of_random_kids_causes_a_limited_number_of_fetches() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        await verifier.verify(alb_token(), load_balancer.HEADER)
        flood = [await reason(verifier, alb_token(kid=kid(n))) for n in range(100, 300)]

        assert len(regional.asked) == MAX_FETCHES
        assert flood.count("pending") == MAX_PENDING
        assert flood.count("unknown_key") == 200 - MAX_PENDING
        assert await reason(verifier, alb_token("bob")) == "accepted"


async def test_concurrent_flood_causes_a_limited_number_of_fetches() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        flood = await asyncio.gather(*(reason(verifier, alb_token(kid=kid(n))) for n in range(100, 300)))

    assert len(regional.asked) == MAX_FETCHES
    assert set(flood) == {"pending", "unknown_key"}


async def test_new_key_is_accepted_after_a_flood() -> None:
    regional = RegionalKeys({kid(2): ec_key("P-256", "alb").as_pem(private=False).decode()})
    async with verifying(regional) as verifier:
        for n in range(100, 100 + MAX_FETCHES):
            await reason(verifier, alb_token(kid=kid(n)))
        assert await reason(verifier, alb_token(kid=kid(2))) == "pending"
        regional.time += COOLDOWN_SECONDS + 1

        assert await reason(verifier, alb_token(kid=kid(2))) == "accepted"


async def test_token_with_another_signer_causes_no_fetch() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        await reason(verifier, alb_token(signer=OTHER_ARN))
        await reason(verifier, alb_token(client="client-2"))

    assert regional.asked == []


@pytest.mark.parametrize("status", [500, 503, 429, 302, 200])
async def test_key_that_cannot_be_fetched_is_pending_and_recovers(status: int) -> None:
    regional = RegionalKeys(status=status)
    async with verifying(regional) as verifier:
        assert [await reason(verifier, alb_token()) for _ in range(2 * MAX_FETCHES)] == ["pending"] * 2 * MAX_FETCHES
        assert len(regional.asked) == MAX_FETCHES
        assert verifier.key_sets()[0].last_failure
        regional.status = None
        regional.time += COOLDOWN_SECONDS + 1

        assert await reason(verifier, alb_token()) == "accepted"
        assert verifier.key_sets()[0].last_failure is None


async def test_unknown_kid_is_remembered_for_the_cooldown() -> None:
    regional = RegionalKeys()
    async with verifying(regional) as verifier:
        for _ in range(3):
            assert await reason(verifier, alb_token(kid=kid(9))) == "unknown_key"

    assert regional.asked == [kid(9)]


async def test_number_of_cached_keys_is_limited() -> None:
    pem = ec_key("P-256", "alb").as_pem(private=False).decode()
    regional = RegionalKeys({kid(n): pem for n in range(1, 2 * MAX_CACHED_KEYS)})
    async with verifying(regional) as verifier:
        for n in regional.keys:
            regional.time += COOLDOWN_SECONDS + 1
            assert await reason(verifier, alb_token(kid=n)) == "accepted"

        assert verifier.key_sets()[0].keys == MAX_CACHED_KEYS


async def test_refresh_drops_withdrawn_keys_and_keeps_the_others() -> None:
    pem = ec_key("P-256", "alb").as_pem(private=False).decode()
    regional = RegionalKeys({kid(1): pem, kid(2): pem})
    async with verifying(regional) as verifier:
        first, second = alb_token(), alb_token(kid=kid(2))
        assert [await reason(verifier, text) for text in (first, second)] == ["accepted", "accepted"]
        del regional.keys[kid(2)]
        assert await verifier.refresh_keys(ISSUER)
        assert [await reason(verifier, text) for text in (first, second)] == ["accepted", "unknown_key"]
        regional.status = 500

        assert not await verifier.refresh_keys(ISSUER)
        assert await reason(verifier, first) == "accepted"


async def test_load_balancer_is_ready_before_its_first_key() -> None:
    async with verifying(RegionalKeys()) as verifier:
        assert await verifier.missing_keys() == []
        assert verifier.key_sets()[0].is_on_demand


@pytest.mark.parametrize(
    ("header", "payload", "name"),
    [
        ({}, {}, None),
        ({"signer": OTHER_ARN}, {}, "signer"),
        ({"iss": "https://other.example.com"}, {}, "signer"),
        ({"client": "other"}, {}, "audience"),
        ({"exp": 1}, {}, "expiry"),
        ({"kid": kid(9)}, {}, "key"),
        ({"key": ec_key("P-256", "other")}, {}, "signature"),
        ({}, {"sub": 7}, "subject"),
    ],
)
@pytest.mark.parametrize("pad", [True, False])
async def test_explanation_agrees_with_the_verifier(
    header: dict[str, Any], payload: dict[str, Any], name: str | None, pad: bool
) -> None:
    async with verifying(RegionalKeys()) as verifier:
        explainer = TokenExplainer(verifier.configured_issuers, verifier.verify, None, now().timestamp())

        report = await explainer.explain(alb_token(payload=payload, pad=pad, **header))

        assert name in [check.name for check in report.failed] if name else report.failed == []
        assert (report.refusal is None) == (name is None)
        assert report.refusal in {None, *(check.reason for check in report.failed)}
