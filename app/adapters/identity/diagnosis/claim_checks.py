"""Runs each check of the claims with the functions that the service uses, and collects every result.

The service stops at the first failed check. One run of these checks reports all failures.
"""

from collections.abc import Callable, Mapping
from typing import Any

from app.adapters.identity import claims as checks
from app.adapters.identity import expectations
from app.adapters.identity.claims import LAST_MOMENT, Issuer, SubjectType
from app.adapters.identity.diagnosis import claim_hints
from app.adapters.identity.diagnosis.shown import kind_of, moment, shown
from app.adapters.identity.diagnosis.token_report import CheckState, TokenCheck
from app.adapters.identity.expectations import Expectation
from app.vending.claim_conditions import ClaimCondition, value_at
from app.vending.errors import TokenRejected
from app.vending.models import Principal

Claims = dict[str, Any]
Hint = Callable[[], str | None]

_ABSENT = object()

PERSONAL_CLAIMS = frozenset(
    {"sub", "email", "name", "preferred_username", "upn", "phone_number", "oid", "uid", "user_id"}
)
"""Claims whose values are not shown, because they may identify a person. The subject claim is not shown either."""


class CheckList:
    """Collects the results of checks that are run one after the other."""

    def __init__(self, expected: Mapping[str, Expectation]) -> None:
        """`expected`: the requirement by reason code."""
        self.expected = dict(expected)
        self.results: list[TokenCheck] = []

    def run(self, name: str, check: Callable[[], object], reason: str, found: str | None, hint: Hint) -> bool:
        """Run one check. `reason` is the usual code of its failure, for the requirement of a passed check."""
        try:
            check()
        except TokenRejected as refusal:
            self.fail(name, refusal.reason, found, hint())
            return False
        self.note(name, CheckState.PASSED, found, reason)
        return True

    def fail(self, name: str, reason: str, found: str | None = None, hint: str | None = None) -> None:
        self.note(name, CheckState.FAILED, found, reason, hint)

    def note(
        self, name: str, state: CheckState, found: str | None = None, reason: str | None = None, hint: str | None = None
    ) -> None:
        about = self.expected.get(reason or "")
        self.results.append(
            TokenCheck(
                name,
                state,
                found,
                about and about.expected,
                about.settings if about else (),
                reason if state is CheckState.FAILED else None,
                hint,
            )
        )


def check_claims(checklist: CheckList, claims: Claims, issuer: Issuer, now: float, *, assumes: bool = False) -> None:
    """Run every check of an access token's claims. `assumes`: absent times and audiences are assumed to be valid."""
    checklist.expected |= expectations.of_issuer(issuer)
    refused = sorted(claims.keys() & issuer.refused_claims)
    checklist.run(
        "kind of token",
        lambda: checks.check_kind(claims, issuer),
        "id_token",
        f"it has {' and '.join(refused)}" if refused else "no claim of an ID token or a logout token",
        lambda: claim_hints.of_kind(claims, issuer),
    )
    _check_times(checklist, claims, issuer, now, assumes=assumes)
    _check_audience(checklist, claims, issuer, assumes=assumes)
    for condition in issuer.required_claims:
        _check_required(checklist, claims, condition, issuer)
    _check_subject(checklist, claims, issuer)
    value = value_at(claims, issuer.scope_path)
    checklist.run(
        "scopes",
        lambda: checks.scopes_of(claims, issuer),
        "bad_scope",
        f"no {issuer.scope_claim}" if value is None else f"{issuer.scope_claim} {shown(value)}",
        lambda: claim_hints.of_scope(issuer),
    )


def _check_times(checklist: CheckList, claims: Claims, issuer: Issuer, now: float, *, assumes: bool) -> None:
    """Each claim is checked as if the token had no other times."""
    if "exp" in claims or not assumes:
        _check_time(checklist, "expiry", "exp", _only(claims, "exp"), issuer, now)
    else:
        checklist.note("expiry", CheckState.ASSUMED, "no exp: the token is assumed not to have expired", "expired")
    for name, claim in (("start", "nbf"), ("issue time", "iat")):
        if claim in claims:
            _check_time(checklist, name, claim, {"exp": LAST_MOMENT} | _only(claims, claim), issuer, now)
    if issuer.max_age is None:
        return
    if "iat" not in claims and assumes:
        checklist.note("age", CheckState.ASSUMED, "no iat: the token is assumed to be new", "too_old")
        return
    max_age = issuer.max_age

    def check_age() -> None:
        _, issued, _ = checks.times_without_age({"exp": LAST_MOMENT} | _only(claims, "iat"), issuer, now)
        checks.end_of_age(issued, max_age, issuer, now)

    found = f"iat {moment(claims['iat'], now)}" if "iat" in claims else "no iat"
    checklist.run("age", check_age, "too_old", found, lambda: claim_hints.of_age(claims.get("iat")))


def _check_time(checklist: CheckList, name: str, claim: str, claims: Claims, issuer: Issuer, now: float) -> None:
    found = f"{claim} {moment(claims[claim], now)}" if claim in claims else f"no {claim}"
    checklist.run(
        name,
        lambda: checks.times_without_age(claims, issuer, now),
        "expired" if claim == "exp" else "not_yet_valid",
        found,
        lambda: claim_hints.of_time(claim, claims.get(claim), now),
    )


def _check_audience(checklist: CheckList, claims: Claims, issuer: Issuer, *, assumes: bool) -> None:
    present = [
        (name, value)
        for name, path in zip(issuer.audience_claims, issuer.audience_paths, strict=True)
        if (value := value_at(claims, path, _ABSENT)) is not _ABSENT
    ]
    if not present and assumes and issuer.audiences:
        found = f"no {' or '.join(issuer.audience_claims)}: the token is assumed to have an accepted audience"
        checklist.note("audience", CheckState.ASSUMED, found, "wrong_audience")
        return
    found = f"{present[0][0]} {shown(present[0][1])}" if present else f"no {' or '.join(issuer.audience_claims)}"
    is_malformed = bool(present) and not isinstance(present[0][1], str | list | None)
    checklist.run(
        "audience",
        lambda: checks.check_access_audience(claims, issuer),
        "wrong_audience",
        found,
        lambda: claim_hints.of_bad_audience() if is_malformed else claim_hints.of_audience(claims, issuer),
    )


def _check_required(checklist: CheckList, claims: Claims, condition: ClaimCondition, issuer: Issuer) -> None:
    value = value_at(claims, condition.path, _ABSENT)
    is_personal = condition.path == issuer.subject_path or bool(PERSONAL_CLAIMS & set(condition.path))
    if value is _ABSENT:
        found = f"no {condition.claim}"
    else:
        found = f"{condition.claim}: {kind_of(value)}" if is_personal else f"{condition.claim} {shown(value)}"
    checklist.expected["required_claim"] = Expectation(condition.claim, condition.expected, ("required_claims",))
    checklist.run(
        f"required claim {condition.claim}",
        lambda: checks.check_required_claim(claims, condition),
        "required_claim",
        found,
        lambda: claim_hints.of_required_claim(claims),
    )


def _check_subject(checklist: CheckList, claims: Claims, issuer: Issuer) -> None:
    value = value_at(claims, issuer.subject_path, _ABSENT)
    has_text = issuer.subject_type is SubjectType.TEXT
    checklist.run(
        "subject",
        lambda: checks.subject_of(claims, issuer),
        "bad_subject",
        f"no {issuer.subject_claim}" if value is _ABSENT else f"{issuer.subject_claim}: {kind_of(value)}",
        lambda: claim_hints.of_subject(None if value is _ABSENT else value, claims, issuer, expects_text=has_text),
    )


def principal_for_policy(claims: Claims, issuer: Issuer, iss: str) -> Principal | None:
    """The principal of claims that may be invalid. None if they name no user."""
    expires, issued = _time_of(claims, "exp"), _time_of(claims, "iat")
    try:
        return checks.principal_with(claims, issuer, iss, LAST_MOMENT if expires is None else expires, issued)
    except TokenRejected:
        return None


def _time_of(claims: Claims, claim: str) -> float | None:
    """The time in seconds since 1970; None if the claim is absent or is not a time."""
    try:
        return checks.numeric_date(claims[claim], claim) if claim in claims else None
    except TokenRejected:
        return None


def _only(claims: Claims, claim: str) -> Claims:
    return {claim: claims[claim]} if claim in claims else {}
