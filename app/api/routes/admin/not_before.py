"""Not-before: reject tokens that were issued before a given time."""

from fastapi import APIRouter

from app.api.dependencies import OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.not_before import NotBeforeInfo, NotBeforeRequest
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.put(
    "/not-before",
    summary="Reject tokens issued before a given time",
    responses=problems_of("invalid_request", "issuer_not_found", "not_before_in_future"),
)
async def set_not_before(wanted: NotBeforeRequest, operators: OperatorsDep) -> NotBeforeInfo:
    """For a user, a session or an issuer, on every replica within two seconds. Devices stay logged in until revoked."""
    return NotBeforeInfo.from_mark(await operators.tokens.set_not_before(wanted.target(), wanted.not_before))
