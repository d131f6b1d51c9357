"""Erasures: remove a user from the ledger and at Telnyx."""

from typing import Any

from fastapi import APIRouter, Response

from app.api.dependencies import OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.erasures import ErasureRequest, ErasureResult
from app.api.strict_route import StrictRoute
from app.vending.not_before import NotBeforeTarget, Reach

router = APIRouter(route_class=StrictRoute)

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": ErasureResult,
        "description": "`complete` is false, or Dialtone still deletes credentials at Telnyx.",
    }
}


@router.post(
    "/erasures",
    summary="Erase a user",
    responses={**ACCEPTED, **problems_of("invalid_request", "not_confirmed", "issuer_not_found")},
)
async def erase_user(wanted: ErasureRequest, operators: OperatorsDep, response: Response) -> ErasureResult:
    """Logs the user out, removes push registrations, and puts a pseudonym into ended leases and audit events.

    It cannot be undone. A later login of the same user works, as the login of a new user. Not-before entries stay, so
    that stolen tokens remain rejected. Without `dry_run` it requires `confirm`.
    """
    user_key, users = wanted.user_key(), operators.users
    if wanted.dry_run:
        return ErasureResult.from_counts(await users.count(user_key))
    operators.leases.check_confirmed(wanted.confirm)
    if wanted.refuse_tokens:
        # Set before the logout. Otherwise a device could log in between the two.
        target = NotBeforeTarget(user_key.issuer, Reach.USER, user_key.subject)
        await operators.tokens.set_not_before(target, None)
    erasure = await users.erase(user_key)
    if erasure.unconfirmed or not erasure.is_complete:
        response.status_code = 202
    return ErasureResult.from_erasure(erasure)
