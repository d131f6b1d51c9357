"""Issuers with different settings side by side: no token becomes another user's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey

from app.adapters.identity.claims import ID_TOKEN_CLAIMS, Issuer, SubjectType
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_secret
from app.adapters.identity.verifier import TokenVerifier
from app.vending.claim_conditions import ClaimCondition
from app.vending.errors import TokenRejected
from app.vending.models import UserKey
from tests.support.tokens import AUDIENCE, claims_of, rsa_key, token
from tests.support.verification import ALGORITHMS, SECRET, fixed_keys, now, rejection_reason

PLAIN, INTEGERS, POINTERS, IDS = (f"https://{name}.example.com" for name in ("plain", "integers", "pointers", "ids"))
TEMPLATE, EXACT = "https://login.example.com/{tid}/v2.0", "https://login.example.com/one/v2.0"
SECRETS = "https://secrets.example.com"
HS256 = frozenset({"HS256"})


def issuer(name: str, **settings: Any) -> Issuer:
    """An issuer with a key of its own."""
    return Issuer(name, frozenset({AUDIENCE}), ALGORITHMS, fixed_keys(rsa_key(name)), **settings)


ISSUERS = [
    issuer(PLAIN),
    issuer(INTEGERS, subject_type=SubjectType.INTEGER),
    issuer(POINTERS, subject_claim="/account/id", scope_claim="/account/roles", audience_claims=("client_id", "aud")),
    issuer(IDS, allowed_foreign_claims=ID_TOKEN_CLAIMS, required_claims=(ClaimCondition("hd", ("example.com",)),)),
    issuer(TEMPLATE, tenants="any"),
    issuer(EXACT),
    Issuer(
        SECRETS,
        frozenset({AUDIENCE}),
        HS256,
        StaticKeySource(from_secret(SECRET.encode(), HS256)),
        takes_tokens_without_iss=True,
    ),
]
ALL = TokenVerifier(ISSUERS, now)


def signed(signer: str, claims: dict[str, Any]) -> str:
    """Any claims, signed by the key of this issuer."""
    key: Any = OctKey.import_key(SECRET) if signer == SECRETS else rsa_key(signer)
    algorithm = "HS256" if signer == SECRETS else "RS256"
    header = {"alg": algorithm} if signer == SECRETS else {"alg": algorithm, "kid": signer}
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, algorithms=[algorithm])


SUBJECTS = st.sampled_from(["alice", "1", 1, True, 1.0, None, "", 0, -1, 2**63, ["alice"], {"id": "alice"}])
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from(
            [*(issuer.issuer for issuer in ISSUERS), "https://login.example.com/two/v2.0", "", None, [PLAIN], 1]
        ),
        "sub": SUBJECTS,
        "account": st.none() | st.fixed_dictionaries({}, optional={"id": SUBJECTS, "roles": SUBJECTS}),
        "tid": st.sampled_from(["one", "two", "{tid}", None, 1, ["one"]]),
        "aud": st.sampled_from([AUDIENCE, "other", [AUDIENCE], None]),
        "client_id": st.sampled_from([AUDIENCE, "other", None]),
        "hd": st.sampled_from(["example.com", "example.org"]),
        "nonce": st.just("n"),
    },
)


def owner_of(signer: str, claims: dict[str, Any]) -> UserKey | None:
    """The only user that a token of this signer with these claims may belong to."""
    iss = claims.get("iss", SECRETS if signer == SECRETS else None)
    if signer == TEMPLATE:
        iss = f"https://login.example.com/{claims.get('tid')}/v2.0" if claims.get("tid") == "two" else None
    elif iss != signer:
        return None
    account = claims.get("account") or {}
    subject = account.get("id") if signer == POINTERS else claims.get("sub")
    if iss is None or iss != claims.get("iss", iss) or type(subject) is not (int if signer == INTEGERS else str):
        return None
    return UserKey(iss, str(subject))


NAMES = [issuer.issuer for issuer in ISSUERS]


@given(st.sampled_from(NAMES), CLAIMS, st.sets(st.sampled_from(["iss", "sub", "account"])))
async def test_accepted_token_belongs_to_its_signers_user(
    signer: str, claims: dict[str, Any], absent: set[str]
) -> None:
    usual = {"sub": 1 if signer == INTEGERS else "alice", "account": {"id": "alice"}, "hd": "example.com"}
    usual |= {"iss": TEMPLATE.replace("{tid}", "two"), "tid": "two"} if signer == TEMPLATE else {"iss": signer}
    base = {name: value for name, value in (claims_of() | usual).items() if name not in absent}
    try:
        principal = await ALL.verify(signed(signer, base | claims))
    except TokenRejected:
        return

    assert principal.user_key == owner_of(signer, base | claims)


async def test_integer_and_text_are_not_one_user() -> None:
    number = await ALL.verify(token(iss=INTEGERS, sub=1, key=rsa_key(INTEGERS)))
    text = await ALL.verify(token(iss=PLAIN, sub="1", key=rsa_key(PLAIN)))

    assert number.subject == text.subject
    assert number.user_key != text.user_key
    assert await rejection_reason(token(iss=INTEGERS, sub="1", key=rsa_key(INTEGERS)), ALL) == "bad_subject"
    assert await rejection_reason(token(iss=PLAIN, sub=1, key=rsa_key(PLAIN)), ALL) == "bad_subject"


@pytest.mark.parametrize("signer", [PLAIN, INTEGERS, POINTERS, IDS, TEMPLATE, EXACT])
async def test_token_without_iss_is_verified_by_the_one_issuer_that_accepts_it(signer: str) -> None:
    claims = {name: value for name, value in claims_of().items() if name != "iss"}

    assert (await ALL.verify(signed(SECRETS, claims))).issuer == SECRETS
    assert await rejection_reason(signed(signer, claims), ALL) == "algorithm_not_allowed"


@pytest.mark.parametrize("iss", [None, "", "https://unknown.example.com", PLAIN, EXACT])
async def test_token_with_iss_is_not_accepted_as_one_without(iss: Any) -> None:
    with pytest.raises(TokenRejected):
        await ALL.verify(signed(SECRETS, claims_of(iss=iss, tid="one")))


async def test_key_of_a_template_does_not_verify_tokens_of_an_exact_issuer() -> None:
    claims = claims_of(iss=EXACT, tid="one")

    assert (await ALL.verify(signed(EXACT, claims))).issuer == EXACT
    assert await rejection_reason(signed(TEMPLATE, claims), ALL) == "unknown_key"


async def test_cached_header_of_one_issuer_is_not_used_for_another() -> None:
    shared = fixed_keys(rsa_key())
    checked = TokenVerifier(
        [
            Issuer(PLAIN, frozenset({AUDIENCE}), ALGORITHMS, shared),
            Issuer(EXACT, frozenset({AUDIENCE}), frozenset({"ES256"}), shared, takes_tokens_without_iss=True),
        ],
        now,
    )
    await checked.verify(token(iss=PLAIN))

    assert await rejection_reason(token(iss=...), checked) == "algorithm_not_allowed"
    assert await rejection_reason(token(iss=EXACT), checked) == "algorithm_not_allowed"
