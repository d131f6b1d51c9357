"""Issuer templates: each tenant's users are its own, and a key verifies only tokens of its issuer."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_jwks
from app.adapters.identity.tenants import IssuerTemplate
from app.adapters.identity.verifier import TokenVerifier
from app.vending.models import Principal
from app.vending.policy import Rule
from tests.support.tokens import AUDIENCE, logout_token, rsa_key, token
from tests.support.verification import ALGORITHMS, fixed_keys, now, rejection_reason

TEMPLATE = "https://login.example.com/{tid}/v2.0"
ONE, TWO, THREE = (f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "123")


def iss(tenant: str) -> str:
    return TEMPLATE.replace("{tid}", tenant)


def issuer(tenants: Any, keys: StaticKeySource | None = None, name: str = TEMPLATE, **changes: Any) -> Issuer:
    return Issuer(name, frozenset({AUDIENCE}), ALGORITHMS, keys or fixed_keys(rsa_key()), tenants=tenants, **changes)


LISTED = TokenVerifier([issuer(frozenset({ONE, TWO}))], now)
ANY = TokenVerifier([issuer("any")], now)


@pytest.mark.parametrize("checked", [LISTED, ANY], ids=["listed", "any"])
async def test_user_belongs_to_the_issuer_in_the_token(checked: TokenVerifier) -> None:
    one = await checked.verify(token(iss=iss(ONE), tid=ONE))
    two = await checked.verify(token(iss=iss(TWO), tid=TWO))

    assert (one.issuer, two.issuer) == (iss(ONE), iss(TWO))
    assert one.user_key != two.user_key
    assert one.configured_issuer == two.configured_issuer == TEMPLATE


async def test_tenant_that_is_not_listed_is_rejected() -> None:
    text = token(iss=iss(THREE), tid=THREE)

    assert await rejection_reason(text, LISTED) == "unknown_issuer"
    assert (await ANY.verify(text)).issuer == iss(THREE)


@pytest.mark.parametrize("checked", [LISTED, ANY], ids=["listed", "any"])
@pytest.mark.parametrize("tid", [..., None, "", TWO, ONE.upper() + "x", [ONE], {ONE: 1}, 1, f"{ONE}\n", f" {ONE}"])
async def test_claim_must_name_the_tenant_of_the_issuer(checked: TokenVerifier, tid: Any) -> None:
    assert await rejection_reason(token(iss=iss(ONE), tid=tid), checked) == "wrong_tenant"


@pytest.mark.parametrize("checked", [LISTED, ANY], ids=["listed", "any"])
@pytest.mark.parametrize(
    "name",
    [
        TEMPLATE,
        iss(""),
        iss("."),
        iss(".."),
        iss(f"{ONE}/v2.0/{TWO}"),
        iss("a/b"),
        iss("a%2Fb"),
        iss("a?b"),
        iss("a#b"),
        iss("a b"),
        iss("{tid}"),
        iss("é"),
        iss("x" * 129),
        iss(ONE) + "/",
        iss(ONE) + "\n",
        iss(ONE)[:-1],
        iss(ONE).replace("https", "http"),
        iss(ONE).replace("login", "LOGIN"),
        "https://login.example.com/v2.0",
        "https://login.example.com//v2.0",
        "",
        None,
        [iss(ONE)],
        ...,
    ],
    ids=str,
)
async def test_issuer_must_fill_the_template_exactly(checked: TokenVerifier, name: Any) -> None:
    tid = name[len("https://login.example.com/") : -len("/v2.0")] if isinstance(name, str) else ONE

    assert await rejection_reason(token(iss=name, tid=tid), checked) == "unknown_issuer"


async def test_template_is_off_by_default() -> None:
    exact = TokenVerifier([issuer(None)], now)

    assert await rejection_reason(token(iss=iss(ONE), tid=ONE), exact) == "unknown_issuer"


async def test_logout_token_names_the_issuer_of_its_tenant() -> None:
    logout = await LISTED.verify_logout(logout_token(iss=iss(ONE), tid=ONE))

    assert logout.issuer == iss(ONE)


async def test_removed_tenant_is_rejected_although_its_tokens_were_cached() -> None:
    checked = TokenVerifier([issuer(frozenset({ONE, TWO}))], now)
    one, two = token(iss=iss(ONE), tid=ONE), token(iss=iss(TWO), tid=TWO)
    for text in (one, two, one):
        await checked.verify(text)
    assert checked.cached_principal(one) is not None

    checked.replace([issuer(frozenset({TWO}))])

    assert checked.cached_principal(one) is None
    assert await rejection_reason(one, checked) == "unknown_issuer"
    assert (await checked.verify(two)).issuer == iss(TWO)


@pytest.mark.parametrize(("tenant", "is_right"), [("x", True), ("x" * 128, True), ("x" * 129, False), ("a.b", True)])
async def test_tenant_id_has_at_most_128_characters(tenant: str, is_right: bool) -> None:
    text = token(iss=iss(tenant), tid=tenant)

    if is_right:
        assert (await ANY.verify(text)).issuer == iss(tenant)
    else:
        assert await rejection_reason(text, ANY) == "unknown_issuer"


async def test_exact_issuer_takes_precedence_over_any_tenant() -> None:
    own = Issuer(iss(ONE), frozenset({"own"}), ALGORITHMS, fixed_keys(rsa_key()))
    checked = TokenVerifier([issuer("any"), own], now)

    assert (await checked.verify(token(iss=iss(ONE), aud="own"))).issuer_template is None
    assert await rejection_reason(token(iss=iss(ONE), tid=ONE), checked) == "wrong_audience"
    assert (await checked.verify(token(iss=iss(TWO), tid=TWO))).issuer == iss(TWO)


async def test_rule_of_a_template_applies_to_its_tenants() -> None:
    rule = Rule("entra", None, issuers=frozenset({TEMPLATE}))

    assert rule.why_not(await ANY.verify(token(iss=iss(THREE), tid=THREE))) is None
    assert rule.why_not(Principal("https://id.example.com", "alice", now())) is not None


def test_issuer_of_a_tenant_is_known_and_the_template_is_not() -> None:
    assert LISTED.accepts_issuer(iss(ONE))
    assert not LISTED.accepts_issuer(iss(THREE))
    assert ANY.accepts_issuer(iss(THREE))
    assert not ANY.accepts_issuer(TEMPLATE)


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_only_the_filled_template_has_a_tenant(prefix: str, suffix: str, text: str) -> None:
    template = IssuerTemplate(prefix, "tid", suffix)
    for iss in (text, template.filled(text)):
        tenant = template.tenant_of(iss)
        assert tenant is None or template.filled(tenant) == iss


# -- keys of one issuer -------------------------------------------------------------------------------------------


def keyed(*issuers: Any) -> StaticKeySource:
    """Keys with these `issuer` members, named by their position."""
    keys = [rsa_key(str(place)).as_dict(private=False) | {"issuer": name} for place, name in enumerate(issuers)]
    return StaticKeySource(from_jwks({"keys": keys}, ALGORITHMS))


@pytest.mark.parametrize("name", ["https://login.example.com/{tenantid}/v2.0", iss(ONE)])
@pytest.mark.parametrize(
    "configured", [issuer(frozenset({ONE, TWO})), issuer(None, name=iss(ONE))], ids=["many", "one"]
)
async def test_key_verifies_tokens_of_its_issuer(name: str, configured: Issuer) -> None:
    checked = TokenVerifier([replace(configured, keys=keyed(name))], now)

    assert (await checked.verify(token(iss=iss(ONE), tid=ONE, key=rsa_key("0")))).issuer == iss(ONE)


@pytest.mark.parametrize(
    "name",
    [
        iss(TWO),
        iss(ONE) + "/",
        "https://login.example.com/{tenantid}",
        "https://login.example.com/{a}/{b}",
        "https://login.example.com/{tenantid/v2.0",
        "https://evil.example.com/{tenantid}/v2.0",
        "",
    ],
)
@pytest.mark.parametrize("tenants", [frozenset({ONE, TWO}), "any"], ids=["listed", "any"])
async def test_key_of_another_issuer_is_rejected(name: str, tenants: Any) -> None:
    checked = TokenVerifier([issuer(tenants, keyed(name))], now)

    assert await rejection_reason(token(iss=iss(ONE), tid=ONE, key=rsa_key("0")), checked) == "key_of_another_issuer"


async def test_each_tenants_key_verifies_only_its_own_tokens() -> None:
    checked = TokenVerifier([issuer("any", keyed(iss(ONE), iss(TWO)))], now)

    assert (await checked.verify(token(iss=iss(ONE), tid=ONE, key=rsa_key("0")))).issuer == iss(ONE)
    assert (await checked.verify(token(iss=iss(TWO), tid=TWO, key=rsa_key("1")))).issuer == iss(TWO)
    assert await rejection_reason(token(iss=iss(TWO), tid=TWO, key=rsa_key("0")), checked) == "key_of_another_issuer"


@pytest.mark.parametrize("name", [7, [iss(ONE)], {}, True])
async def test_key_with_an_invalid_issuer_is_skipped(name: Any) -> None:
    checked = TokenVerifier([issuer("any", keyed(name, None))], now)

    assert await rejection_reason(token(iss=iss(ONE), tid=ONE, key=rsa_key("0")), checked) == "unknown_key"
    assert (await checked.verify(token(iss=iss(ONE), tid=ONE, key=rsa_key("1")))).issuer == iss(ONE)
