"""The settings of one issuer: accepted and rejected tokens, both sides of each boundary, and strict defaults."""

from typing import Any

import pytest

from app.adapters.identity.claims import ID_TOKEN_CLAIMS, Issuer, SubjectType
from app.adapters.identity.compact_jws import MAX_CONFIGURABLE_TOKEN_LENGTH, MAX_TOKEN_LENGTH
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_pem
from app.adapters.identity.verifier import TokenVerifier
from app.vending.claim_conditions import ClaimCondition
from app.vending.errors import LogoutTokenRejected
from tests.support.tokens import AUDIENCE, ISSUER, logout_token, pem, token, token_of_length
from tests.support.verification import ALGORITHMS, SETTINGS, now, rejection_reason, verifier


def token_with(claims: dict[str, Any]) -> str:
    return token(**claims)


async def is_accepted(unverified_token: str, **settings: Any) -> bool:
    return (await verifier(**settings).verify(unverified_token)).issuer == ISSUER


@pytest.mark.parametrize("setting", SETTINGS)
async def test_usual_token_is_accepted_with_each_setting(setting: str) -> None:
    on = SETTINGS[setting]

    assert await is_accepted(token(**on.claims), **on.issuer)


# -- audience_claims ----------------------------------------------------------------------------------------------

CLIENT_ID = {"audience_claims": ("client_id",)}
BOTH = {"audience_claims": ("aud", "client_id")}


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        (CLIENT_ID, {"client_id": AUDIENCE, "aud": ...}),
        (CLIENT_ID, {"client_id": [AUDIENCE, "other"], "aud": ...}),
        (CLIENT_ID, {"client_id": AUDIENCE, "aud": "billing"}),
        (BOTH, {"client_id": AUDIENCE, "aud": ...}),
        (BOTH, {"client_id": "other", "aud": AUDIENCE}),
        ({"audience_claims": ("/client/id",)}, {"client": {"id": AUDIENCE}, "aud": ...}),
    ],
    ids=str,
)
async def test_first_present_audience_claim_matches(settings: dict[str, Any], claims: dict[str, Any]) -> None:
    assert await is_accepted(token(**claims), **settings)


@pytest.mark.parametrize(
    ("settings", "claims", "why"),
    [
        ({}, {"client_id": AUDIENCE, "aud": ...}, "no_audience"),
        ({}, {"azp": AUDIENCE, "aud": ...}, "no_audience"),
        (CLIENT_ID, {"aud": AUDIENCE}, "no_audience"),
        (CLIENT_ID, {"client_id": "other", "aud": AUDIENCE}, "wrong_audience"),
        (CLIENT_ID, {"client_id": None, "aud": AUDIENCE}, "no_audience"),
        (CLIENT_ID, {"client_id": 7, "aud": ...}, "bad_audience"),
        (CLIENT_ID, {"client_id": {AUDIENCE: 1}, "aud": ...}, "bad_audience"),
        (BOTH, {"client_id": AUDIENCE, "aud": "other"}, "wrong_audience"),
        (BOTH, {"client_id": AUDIENCE, "aud": []}, "wrong_audience"),
        (BOTH, {"client_id": AUDIENCE, "aud": None}, "no_audience"),
        ({"audience_claims": ("/client/id",)}, {"client": AUDIENCE, "aud": ...}, "no_audience"),
    ],
    ids=str,
)
async def test_later_audience_claim_does_not_replace_a_wrong_one(
    settings: dict[str, Any], claims: dict[str, Any], why: str
) -> None:
    assert await rejection_reason(token(**claims), verifier(**settings)) == why


async def test_issuer_without_audiences_rejects_tokens_with_an_audience() -> None:
    settings = {"audiences": frozenset[str](), "required_claims": (ClaimCondition("token_use", ("access",)),)}

    assert await is_accepted(token(aud=..., token_use="access"), **settings)
    assert await is_accepted(token(aud=None, token_use="access"), **settings)
    assert await rejection_reason(token(aud="billing", token_use="access"), verifier(**settings)) == "wrong_audience"
    assert await rejection_reason(token(aud=[], token_use="access"), verifier(**settings)) == "wrong_audience"
    assert await rejection_reason(token(aud=...), verifier(**settings)) == "required_claim"


async def test_issuer_without_audiences_checks_every_audience_claim() -> None:
    settings = {
        "audiences": frozenset[str](),
        "audience_claims": ("client_id", "aud"),
        "required_claims": (ClaimCondition("token_use", ("access",)),),
    }
    unverified_token = token(client_id=None, aud="billing", token_use="access")

    assert await rejection_reason(unverified_token, verifier(**settings)) == "wrong_audience"


# -- required_claims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        (ClaimCondition("token_use", ("access",)), {"token_use": "access"}, {"token_use": "id"}),
        (ClaimCondition("token_use", ("access", "m2m")), {"token_use": "m2m"}, {"token_use": ["id"]}),
        (ClaimCondition("email_verified", (True,)), {"email_verified": True}, {"email_verified": "true"}),
        (ClaimCondition("email", glob="*@example.com"), {"email": "a@example.com"}, {"email": "a@example.org"}),
        (ClaimCondition("scp", glob="?*"), {"scp": "phone"}, {"scp": ""}),
        (ClaimCondition("roles", has_key="agent"), {"roles": {"agent": {}}}, {"roles": {"user": {}}}),
        (
            ClaimCondition("/firebase/sign_in_provider", ("password", "google.com")),
            {"firebase": {"sign_in_provider": "password"}},
            {"firebase": {"sign_in_provider": "anonymous"}},
        ),
    ],
    ids=str,
)
async def test_required_claim_decides(condition: ClaimCondition, right: dict[str, Any], wrong: dict[str, Any]) -> None:
    settings = {"required_claims": (condition,)}

    assert await is_accepted(token(**right), **settings)
    assert await rejection_reason(token(**wrong), verifier(**settings)) == "required_claim"
    assert await rejection_reason(token(), verifier(**settings)) == "required_claim"


async def test_every_required_claim_must_match() -> None:
    checked = verifier(required_claims=(ClaimCondition("a", (1,)), ClaimCondition("b", (2,))))

    assert (await checked.verify(token(a=1, b=2))).subject == "alice"
    assert await rejection_reason(token(a=1), checked) == "required_claim"
    assert await rejection_reason(token(b=2), checked) == "required_claim"


# -- ID tokens and their claims -----------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", sorted(ID_TOKEN_CLAIMS))
async def test_claim_of_id_tokens_is_accepted_only_if_allowed(claim: str) -> None:
    text = token_with({claim: "x"})

    assert await is_accepted(text, allowed_foreign_claims=frozenset({claim}))
    assert await rejection_reason(text) == "id_token"
    for other in ID_TOKEN_CLAIMS - {claim}:
        both = token_with({claim: "x", other: "x"})
        assert await rejection_reason(both, verifier(allowed_foreign_claims=frozenset({claim}))) == "id_token"


async def test_event_tokens_are_never_allowed() -> None:
    checked = verifier(allowed_foreign_claims=ID_TOKEN_CLAIMS | {"events"})

    assert await rejection_reason(token(nonce="n", events={}), checked) == "event_token"


# -- tokens without iss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iss", [None, "", [], [ISSUER], {}, 0, False, "https://other.example.com", ISSUER + "/"])
async def test_unknown_iss_is_not_an_absent_one(iss: Any) -> None:
    checked = verifier(takes_tokens_without_iss=True)

    assert (await checked.verify(token(iss=...))).issuer == ISSUER
    assert await rejection_reason(token(iss=iss), checked) == "unknown_issuer"


async def test_token_without_iss_is_rejected_by_default() -> None:
    assert await rejection_reason(token(iss=...)) == "unknown_issuer"


async def test_logout_token_needs_iss_even_if_access_tokens_do_not() -> None:
    with pytest.raises(LogoutTokenRejected) as refusal:
        await verifier(takes_tokens_without_iss=True).verify_logout(logout_token(iss=...))

    assert refusal.value.reason == "unknown_issuer"


# -- the user -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2**53 + 1, 2**63 - 1])
async def test_integer_subject_is_exact(number: int) -> None:
    principal = await verifier(subject_type=SubjectType.INTEGER).verify(token(sub=number))

    assert principal.subject == str(number)


@pytest.mark.parametrize("value", [-1, 2**63, "1", "", True, False, 1.0, 1e3, None, [1], {"id": 1}, ...])
async def test_integer_subject_of_another_type_or_range_is_rejected(value: Any) -> None:
    assert await rejection_reason(token(sub=value), verifier(subject_type=SubjectType.INTEGER)) == "bad_subject"


async def test_integer_subject_is_rejected_by_default() -> None:
    assert await rejection_reason(token(sub=1)) == "bad_subject"


async def test_sub_may_be_absent_if_another_claim_names_the_user() -> None:
    checked = verifier(subject_claim="employee")

    assert (await checked.verify(token(employee="e-17"))).subject == "e-17"
    assert (await checked.verify(token(employee="e-17", sub=...))).subject == "e-17"
    assert await rejection_reason(token(), checked) == "bad_subject"
    assert await rejection_reason(token(sub=...)) == "bad_subject"


ODD = [None, "", 7, 1.5, True, [], ["x"], {}, {"id": None}, {"id": 7}, {"id": ""}, {"id": ["x"]}, {"id": {"x": 1}}]


@pytest.mark.parametrize("value", [..., *ODD], ids=str)
async def test_pointer_to_anything_but_text_names_no_user(value: Any) -> None:
    assert await rejection_reason(token(account=value), verifier(subject_claim="/account/id")) == "bad_subject"


async def test_pointer_names_the_user() -> None:
    checked = verifier(subject_claim="/account/ids/1")

    assert (await checked.verify(token(account={"ids": ["a", "b"]}))).subject == "b"
    assert await rejection_reason(token(account={"ids": ["a"]}), checked) == "bad_subject"
    assert await rejection_reason(token_with({"/account/ids/1": "b"}), checked) == "bad_subject"


async def test_logout_token_names_the_user_as_access_tokens_do() -> None:
    integer = verifier(subject_claim="/account/id", subject_type=SubjectType.INTEGER)

    assert (await integer.verify_logout(logout_token(account={"id": 7}))).subject == "7"
    assert (await integer.verify_logout(logout_token(sid="s"))).subject is None


# -- scopes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("phone calls", ["calls", "phone"]),
        (["phone", "calls"], ["calls", "phone"]),
        (["make calls"], ["make calls"]),
        ([], []),
        ("", []),
        (None, []),
        (..., []),
    ],
    ids=str,
)
@pytest.mark.parametrize("claim", ["scope", "scp"])
async def test_scopes_are_text_or_a_list(claim: str, value: Any, scopes: list[str]) -> None:
    principal = await verifier(scope_claim=claim).verify(token(**{"scope": ..., claim: value}))

    assert sorted(principal.scopes) == scopes


@pytest.mark.parametrize("value", [7, True, {"phone": 1}, ["phone", 1], ["phone", None], [["phone"]]], ids=str)
async def test_scopes_of_another_type_are_rejected(value: Any) -> None:
    assert await rejection_reason(token(scope=value)) == "bad_scope"
    assert await rejection_reason(token(a={"b": value}), verifier(scope_claim="/a/b")) == "bad_scope"


async def test_pointer_finds_the_scopes() -> None:
    checked = verifier(scope_claim="/resource_access/dialtone/roles")

    principal = await checked.verify(token(scope="mail", resource_access={"dialtone": {"roles": ["phone"]}}))

    assert principal.scopes == {"phone"}
    assert (await checked.verify(token(scope="mail", resource_access=["dialtone"]))).scopes == set()


# -- length -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, MAX_TOKEN_LENGTH),
        ({"max_token_length": 9000}, 9000),
        ({"max_token_length": 12_288}, MAX_CONFIGURABLE_TOKEN_LENGTH),
    ],
    ids=str,
)
async def test_token_may_have_the_maximum_length(settings: dict[str, Any], limit: int) -> None:
    assert await is_accepted(token_of_length(limit), **settings)
    assert await rejection_reason(token_of_length(limit + 1), verifier(**settings)) == "too_long"


async def test_maximum_length_of_one_issuer_is_not_that_of_another() -> None:
    keys = StaticKeySource(from_pem(pem(), ALGORITHMS))
    other = "https://other.example.com"
    checked = TokenVerifier(
        [
            Issuer(ISSUER, frozenset({AUDIENCE}), ALGORITHMS, keys),
            Issuer(other, frozenset({AUDIENCE}), ALGORITHMS, keys, max_token_length=MAX_CONFIGURABLE_TOKEN_LENGTH),
        ],
        now,
    )

    assert (await checked.verify(token_of_length(9000, iss=other))).issuer == other
    assert await rejection_reason(token_of_length(9000, iss=ISSUER), checked) == "too_long"
