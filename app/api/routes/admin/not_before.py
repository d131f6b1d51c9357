"""Refusing tokens that were issued before a moment."""

from fastapi import APIRouter

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.schemas.not_before import NotBefore, NotBeforeRequest

router = APIRouter()


@router.put(
    "/not-before",
    summary="Refuse tokens issued before a moment",
    responses=problems_of(
        "invalid_request", "refused", "issuer_not_found", "not_before_in_future", "ledger_unavailable"
    ),
)
async def refuse_tokens(wanted: NotBeforeRequest, components: ComponentsDep) -> NotBefore:
    """For a user, a session or a whole issuer, on every replica within two seconds. Devices stay: revoke them too."""
    return NotBefore.of(await components.operators.tokens.refuse_tokens(wanted.target(), wanted.not_before))
