"""Issuers' signing keys: their state, and fetching them now."""

from fastapi import APIRouter

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.schemas.keys import KeyRefreshes, KeyRefreshRequest, KeySetInfo, KeySets

router = APIRouter()


@router.get("/keys", summary="How the issuers' keys are doing", responses=problems_of("refused"))
async def keys(components: ComponentsDep) -> KeySets:
    """As this replica has them."""
    return KeySets(data=[KeySetInfo.model_validate(status) for status in components.identity.verifier.key_sets()])


@router.post(
    "/keys/refresh",
    summary="Fetch issuers' keys now",
    responses=problems_of("invalid_request", "refused", "issuer_not_found", "ledger_unavailable"),
)
async def refresh_keys(wanted: KeyRefreshRequest, components: ComponentsDep) -> KeyRefreshes:
    """After a key was withdrawn in haste. The other replicas do the same within two seconds."""
    return KeyRefreshes(refreshed=await components.operators.tokens.refresh_keys(wanted.issuer))
