"""Explains a token or claims check by check. `TokenExplainer.explain` is the main function.

The checks are the service's own functions, called one by one. The verdict comes from the service's verifier, so this
explanation cannot call a token accepted that the service rejects.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from app.adapters.identity import expectations, load_balancer
from app.adapters.identity import unverified_tokens as checks
from app.adapters.identity.claims import Issuer
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.diagnosis import claim_hints, pasted_text
from app.adapters.identity.diagnosis.claim_checks import CheckList, Claims, check_claims, principal_for_policy
from app.adapters.identity.diagnosis.issuer_check import assumed_issuer, issuer_of
from app.adapters.identity.diagnosis.shown import counted, shown
from app.adapters.identity.diagnosis.token_report import CheckState, TokenReport
from app.adapters.identity.issuers import Issuers
from app.adapters.identity.unverified_tokens import UnverifiedToken
from app.vending.errors import DialtoneError, IdentityUnavailable, LedgerUnavailable, TokenRejected
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import Principal

Verify = Callable[[str, str | None], Awaitable[Principal]]
CheckNotBefore = Callable[[Principal], Awaitable[None]]

_KEY_REASONS = ("unknown_key", "ambiguous_key", "key_of_another_issuer")

_BAD_KID = "let the provider write kid as short text"
_TOO_LONG = "increase max_token_bytes, or let the provider put fewer claims into the token"

KEYS_UNAVAILABLE = "keys_unavailable"
"""Not a reason code of the service, which answers 503 in this case."""


class TokenExplainer:
    """Explains tokens of the configured issuers."""

    def __init__(self, issuers: Issuers, verify: Verify, check_not_before: CheckNotBefore | None, now: float) -> None:
        """`verify` is the service's verifier, which decides. `check_not_before` reads the ledger; None: no ledger."""
        self._issuers = issuers
        self._verify = verify
        self._check_not_before = check_not_before
        self._now = now

    async def explain(self, text: str) -> TokenReport:
        """Explain the text that a client sends after the word Bearer. It may be any text."""
        checklist = CheckList(self._issuers.expectations)
        pasted = pasted_text.examine(text)
        if pasted.faults:
            reason = await self._refusal(text, None) or "not_three_parts"
            found = (
                "no token" if pasted.token is None else "a token inside other text; the checks below are for that token"
            )
            for fault in pasted.faults:
                checklist.fail("input", reason, found, fault)
        examined = None if pasted.token is None else await self._examine(checklist, pasted.token)
        issuer, principal, is_verified = examined or (None, None, False)
        refusal = await self._refusal(text, issuer)
        if refusal is not None and _first_reason(checklist) is None:
            checklist.fail("verification", refusal)
        refusal = refusal or _first_reason(checklist)  # a not-before entry, which `verify` does not check
        return TokenReport(
            tuple(checklist.results), refusal, None if issuer is None else issuer.issuer, is_verified, principal
        )

    def explain_claims(self, claims: Claims) -> TokenReport:
        """Explain claims without a token. Claims with `exp` are complete; in others, usual claims are assumed."""
        checklist = CheckList(self._issuers.expectations)
        assumes = "exp" not in claims
        found = assumed_issuer(checklist, claims, self._issuers) if assumes else None
        found = found or issuer_of(checklist, claims, self._issuers)
        if found is None:
            return TokenReport(tuple(checklist.results), _first_reason(checklist))
        iss, issuer = found
        check_claims(checklist, claims, issuer, self._now, assumes=assumes)
        principal = principal_for_policy(claims, issuer, iss)
        return TokenReport(tuple(checklist.results), _first_reason(checklist), issuer.issuer, principal=principal)

    async def _refusal(self, text: str, issuer: Issuer | None) -> str | None:
        try:
            await self._verify(text, None if issuer is None else issuer.header)
        except TokenRejected as refusal:
            return refusal.reason
        except LedgerUnavailable:
            return None
        except DialtoneError:
            return KEYS_UNAVAILABLE
        return None

    async def _examine(self, checklist: CheckList, token: str) -> tuple[Issuer | None, Principal | None, bool] | None:
        """The issuer, the principal, and whether the signature is valid. None if there are no claims to check."""
        if len(token) > self._issuers.max_token_length:
            checklist.fail("length", "too_long", counted(len(token), "character"), _TOO_LONG)
        jws, header, claims = self._parse(checklist, token)
        if claims is None:
            return None
        algorithm, is_verified = None, False
        if (
            jws is not None
            and header is not None
            and "signer" in header
            and (own := self._of_load_balancer(header["signer"])) is not None
        ):
            iss, issuer = own.issuer, own
            claims = _check_signer(checklist, jws, header, claims, own)
        else:
            found = issuer_of(checklist, claims, self._issuers, header)
            if found is None:
                why = "they were not checked, because no issuer's settings apply"
                checklist.note("claims", CheckState.NOT_CHECKED, why)
                return None
            iss, issuer = found
        checklist.expected |= expectations.of_issuer(issuer)
        self._check_place(checklist, token, issuer)
        if header is not None:
            algorithm = _check_header(checklist, header, issuer)
        if jws is None or header is None or algorithm is None:
            why = "the form is invalid" if jws is None else "the algorithm is not allowed"
            checklist.note("signature", CheckState.NOT_CHECKED, f"it was not checked, because {why}", "bad_signature")
        else:
            kid = header.get("kid")
            unverified = UnverifiedToken(jws, claims, iss, issuer, algorithm, kid if isinstance(kid, str) else None)
            is_verified = await _check_signature(checklist, unverified, header)
        check_claims(checklist, claims, issuer, self._now)
        principal = principal_for_policy(claims, issuer, iss)
        await self._note_not_before(checklist, principal)
        return issuer, principal, is_verified

    def _parse(
        self, checklist: CheckList, token: str
    ) -> tuple[CompactJws | None, dict[str, Any] | None, Claims | None]:
        """The token, its header and its claims. For a malformed token, the parts that can be decoded."""
        is_padded = "=" in token and self._of_load_balancer() is not None
        try:
            jws = load_balancer.parse(token, len(token)) if is_padded else CompactJws.parse(token, len(token))
            header, claims = jws.header(), jws.claims()
        except TokenRejected as refusal:
            checklist.fail("form", refusal.reason, _parts(token), pasted_text.why_malformed(token, refusal.reason))
            parts = token.split(".")
            if len(parts) not in (2, 3):
                return None, None, None
            return None, pasted_text.decoded_part(parts[0]), pasted_text.decoded_part(parts[1])
        checklist.note("form", CheckState.PASSED, _parts(token), "not_three_parts")
        return jws, header, claims

    def _of_load_balancer(self, signer: Any = None) -> Issuer | None:
        """The issuer with this signer, or else any issuer with a signer."""
        signed = [issuer for issuer in self._issuers if issuer.signer is not None]
        return next((issuer for issuer in signed if issuer.signer == signer), next(iter(signed), None))

    def _check_place(self, checklist: CheckList, token: str, issuer: Issuer) -> None:
        if len(token) <= self._issuers.max_token_length:
            checklist.run(
                "length",
                lambda: checks.check_length(token, issuer),
                "too_long",
                counted(len(token), "character"),
                lambda: _TOO_LONG,
            )
        if issuer.header is not None:
            found = f"not checked: the service accepts this token in the request header {issuer.header} only"
            checklist.note("request header", CheckState.NOT_CHECKED, found, "wrong_header")

    async def _note_not_before(self, checklist: CheckList, principal: Principal | None) -> None:
        if self._check_not_before is None or principal is None:
            why = "the ledger does not exist here" if principal is not None else "the token names no user"
            checklist.note("not-before", CheckState.NOT_CHECKED, why, "not_before")
            return
        try:
            await self._check_not_before(principal)
        except LedgerUnavailable:
            why = "the ledger is unavailable, so not-before entries were not checked"
            checklist.note("not-before", CheckState.NOT_CHECKED, why, "not_before")
        except TokenRejected as refusal:
            hint = "an operator or a logout at the provider invalidated the token: sign in again"
            checklist.fail("not-before", refusal.reason, "the token was issued before an entry", hint)
        else:
            checklist.note("not-before", CheckState.PASSED, "no entry rejects the token", "not_before")


def _check_signer(
    checklist: CheckList, jws: CompactJws, header: dict[str, Any], claims: Claims, issuer: Issuer
) -> Claims:
    """The claims of a load balancer's token, some of which are in its header."""
    checklist.expected |= expectations.of_issuer(issuer)
    own: list[Claims] = []
    checklist.run(
        "signer",
        lambda: own.append(checks.claims_of_load_balancer(jws, header, issuer, issuer.signer or "")),
        "wrong_signer",
        f"signer {shown(header.get('signer'))}, iss {shown(header.get('iss'))}",
        lambda: "another load balancer signed the token, or signer and issuer are not those of this load balancer",
    )
    return own[0] if own else claims


def _check_header(checklist: CheckList, header: dict[str, Any], issuer: Issuer) -> str | None:
    """The algorithm, if it is allowed."""
    algorithm = header.get("alg")
    is_allowed = checklist.run(
        "algorithm",
        lambda: checks.algorithm_of(header, issuer),
        "algorithm_not_allowed",
        f"alg {shown(algorithm)}",
        lambda: claim_hints.of_algorithm(header, issuer),
    )
    if "kid" in header:
        checklist.run(
            "key id", lambda: checks.kid_of(header), "bad_kid", f"kid {shown(header['kid'])}", lambda: _BAD_KID
        )
    if not checks.REFUSED_HEADERS.isdisjoint(header):
        refused = checks.REFUSED_HEADERS
        checklist.run(
            "header extensions",
            lambda: checks.check_extensions(header),
            "unsupported_header",
            ", ".join(sorted(refused & header.keys())),
            lambda: claim_hints.of_extensions(header, refused),
        )
    typ = header.get("typ")
    checklist.run(
        "type",
        lambda: checks.check_type(header, issuer.token_types),
        "wrong_type",
        "no typ" if typ is None else f"typ {shown(typ)}",
        lambda: claim_hints.of_type(typ, issuer),
    )
    return str(algorithm) if is_allowed else None


async def _check_signature(checklist: CheckList, unverified: UnverifiedToken, header: dict[str, Any]) -> bool:
    """Check the key and the signature as the service does. Fetches the keys."""
    issuer = unverified.issuer
    named = f"kid {shown(unverified.kid)}" if unverified.kid is not None else "no kid"
    try:
        await checks.check_with_keys(unverified, lambda _: None)
    except IdentityUnavailable:
        cause = issuer.keys.status(issuer.issuer).last_failure
        checklist.fail("key", KEYS_UNAVAILABLE, cause or "no keys", "`dialtone doctor` checks the key source")
    except TokenRejected as refusal:
        if refusal.reason in _KEY_REASONS:
            found = f"{named} and alg {unverified.algorithm}"
            checklist.fail("key", refusal.reason, found, _why_no_key(unverified))
        else:
            size = counted(len(unverified.token.signature), "byte")
            hint = claim_hints.of_signature(
                header, unverified.algorithm, unverified.token.signature, unverified.claims, issuer
            )
            checklist.fail("signature", refusal.reason, f"{size}, {named}", hint)
    else:
        checklist.note("signature", CheckState.PASSED, f"it is valid, {named}", "bad_signature")
        return True
    return False


def _why_no_key(unverified: UnverifiedToken) -> str:
    keys = unverified.issuer.keys.cached()
    if keys is None:
        return "the keys are unavailable"
    usable = [f"{shown(key.kid)} ({expectations.one_of(key.checks)})" for key in keys]
    skipped = [f"{shown(key.kid)}: {key.reason}" for key in keys.skipped]
    texts = [f"usable keys: {', '.join(usable[:5]) or 'none'}"]
    if skipped:
        texts.append(f"skipped keys: {'; '.join(skipped[:5])}")
    if unverified.issuer.issuer in GRANT_ISSUERS:
        texts.append("another key than DIALTONE_GRANT_KEY and DIALTONE_OTHER_GRANT_KEY signed the grant")
    else:
        texts.append("the token is of another environment, or the provider has removed or not yet published its key")
    return ". ".join(text[:1].upper() + text[1:] if number else text for number, text in enumerate(texts))


def _parts(token: str) -> str:
    return f"{counted(token.count('.') + 1, 'part')}, {counted(len(token), 'character')}"


def _first_reason(checklist: CheckList) -> str | None:
    return next((check.reason for check in checklist.results if check.state is CheckState.FAILED), None)
