"""The explanation of a token agrees with the verifier, whatever the token contains."""

import json
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws

from app.adapters.identity.claims import Issuer
from app.adapters.identity.diagnosis.explain import TokenExplainer
from app.adapters.identity.diagnosis.token_report import CheckState, TokenReport
from app.adapters.identity.verifier import TokenVerifier
from app.vending import strict_json
from app.vending.errors import LedgerUnavailable, TokenRejected
from app.vending.models import Principal
from tests.support.tokens import ISSUER, claims_of, ec_key, rsa_key, token
from tests.support.verification import JSON_OBJECTS, SETTINGS, fixed_keys, now, raw_token, verifier

VERIFIERS = {name: verifier(**setting.issuer) for name, setting in SETTINGS.items()}


def explainer(checked: TokenVerifier, check_not_before: Any = None, at: datetime | None = None) -> TokenExplainer:
    return TokenExplainer(checked.configured_issuers, checked.verify, check_not_before, (at or now()).timestamp())


async def reason_of(checked: TokenVerifier, text: str) -> str | None:
    try:
        await checked.verify(text)
    except TokenRejected as refusal:
        return refusal.reason
    return None


def assert_consistent(report: TokenReport, reason: str | None) -> None:
    assert report.refusal == reason
    assert (report.refusal is None) == (report.failed == [])
    assert reason is None or reason in {check.reason for check in report.failed}
    for check in report.checks:
        texts = [check.found or "", check.expected or "", check.hint or ""]
        assert all(text.isascii() and text.isprintable() for text in texts), texts


@given(st.sampled_from(sorted(SETTINGS)), JSON_OBJECTS, JSON_OBJECTS, st.binary(max_size=300))
async def test_explanation_of_any_unsigned_json_agrees_with_the_verifier(
    setting: str, header: Any, payload: Any, signature: bytes
) -> None:
    checked = VERIFIERS[setting]
    text = raw_token({"alg": "RS256"} | header, {"iss": ISSUER} | SETTINGS[setting].claims | payload, signature)

    assert_consistent(await explainer(checked).explain(text), await reason_of(checked, text))


@given(st.sampled_from(sorted(SETTINGS)), JSON_OBJECTS)
async def test_explanation_of_any_signed_claims_agrees_with_the_verifier(setting: str, claims: Any) -> None:
    checked = VERIFIERS[setting]
    payload = json.dumps(claims_of() | SETTINGS[setting].claims | claims)
    text = jws.serialize_compact({"alg": "RS256", "kid": "first"}, payload.encode(), rsa_key(), algorithms=["RS256"])

    assert_consistent(await explainer(checked).explain(text), await reason_of(checked, text))


@given(st.sampled_from(sorted(SETTINGS)), JSON_OBJECTS)
async def test_explanation_of_complete_claims_agrees_with_the_verifier(setting: str, changes: Any) -> None:
    checked = VERIFIERS[setting]
    claims = claims_of() | SETTINGS[setting].claims | changes
    signed = jws.serialize_compact(
        {"alg": "RS256", "kid": "first"}, json.dumps(claims).encode(), rsa_key(), algorithms=["RS256"]
    )

    try:
        parsed = strict_json.parse(json.dumps(claims).encode())
    except strict_json.InvalidJson:
        assert await reason_of(checked, signed) is not None
        return

    report = explainer(checked).explain_claims(parsed)

    reason = await reason_of(checked, signed)
    assert reason == "too_long" or (report.refusal is None) == (reason is None)  # claims have no length


@given(st.text(max_size=300))
async def test_any_text_is_rejected_with_an_explanation(text: str) -> None:
    report = await explainer(VERIFIERS["default"]).explain(text)

    assert_consistent(report, await reason_of(VERIFIERS["default"], text))
    assert report.principal is None


@pytest.mark.parametrize("setting", SETTINGS)
async def test_principal_of_claims_is_the_verified_one(setting: str) -> None:
    on = SETTINGS[setting]
    checked = verifier(**on.issuer)
    issued_at = int(now().timestamp())
    claims = {"iat": issued_at, "exp": issued_at + 3600} | on.claims

    claimed = explainer(checked).explain_claims(claims_of(**claims)).principal
    verified = await checked.verify(token(**claims))

    assert claimed == verified


async def test_claims_of_a_rejected_token_are_explained_and_marked_as_unverified() -> None:
    report = await explainer(VERIFIERS["default"]).explain(raw_token({"alg": "RS256"}, claims_of(aud="other", exp=1)))

    assert not report.is_verified
    assert {"bad_signature", "wrong_audience", "expired"} <= {check.reason for check in report.failed}


async def test_absent_claims_are_assumed_to_be_valid_without_exp() -> None:
    report = explainer(VERIFIERS["default"]).explain_claims({"sub": "alice"})

    assumed = [check.name for check in report.checks if check.state is CheckState.ASSUMED]
    assert report.refusal is None
    assert assumed == ["issuer", "expiry", "audience"]


@pytest.mark.parametrize("claim", ["iss", "aud"])
async def test_nothing_is_assumed_for_claims_with_exp(claim: str) -> None:
    report = explainer(VERIFIERS["default"]).explain_claims(claims_of("alice", **dict[str, Any]({claim: ...})))

    assert report.refusal in ("unknown_issuer", "no_audience")


async def test_issuer_is_not_assumed_if_there_are_several() -> None:
    issuers = list(VERIFIERS["default"].configured_issuers)
    other = Issuer("https://other.example.com", issuers[0].audiences, issuers[0].algorithms, issuers[0].keys)

    report = explainer(TokenVerifier([*issuers, other], now)).explain_claims({"sub": "alice"})

    assert report.refusal == "unknown_issuer"


async def test_unavailable_ledger_is_reported_and_does_not_reject_the_token() -> None:
    async def check(_: Principal) -> None:
        raise LedgerUnavailable

    report = await explainer(VERIFIERS["default"], check).explain(token())

    assert report.refusal is None
    assert [check.name for check in report.checks if check.state is CheckState.NOT_CHECKED] == ["not-before"]


async def test_not_before_entry_rejects_the_token() -> None:
    async def check(_: Principal) -> None:
        raise TokenRejected("not_before")

    assert (await explainer(VERIFIERS["default"], check).explain(token())).refusal == "not_before"


async def test_signature_in_der_is_explained() -> None:
    signing_input, _, _ = token(key=ec_key(), header={"alg": "ES256"}).rpartition(".")
    private = ec_key().private_key
    assert private is not None
    in_der = private.sign(signing_input.encode(), ECDSA(SHA256()))
    checked = verifier(algorithms=frozenset({"ES256"}), keys=fixed_keys(ec_key()))

    report = await explainer(checked).explain(f"{signing_input}.{urlsafe_b64encode(in_der).decode().rstrip('=')}")

    (failed,) = report.failed
    assert failed.reason == "bad_signature"
    assert "the signature is in DER" in str(failed.hint)
