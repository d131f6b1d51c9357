"""Issuers' signing keys: list their state, and fetch them on demand."""

from fastapi import APIRouter

from app.api.dependencies import OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.keys import KeyRefreshRequest, KeyRefreshResult, KeySetInfo, KeySetList
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.get("/keys", summary="List the issuers' key sets", responses=problems_of())
async def list_key_sets(operators: OperatorsDep) -> KeySetList:
    """The signing keys of every issuer in the memory of the responding replica."""
    return KeySetList(data=[KeySetInfo.model_validate(status) for status in operators.tokens.key_sets()])


@router.post(
    "/keys/refresh",
    summary="Fetch the issuers' keys now",
    responses=problems_of("invalid_request", "issuer_not_found"),
)
async def refresh_keys(wanted: KeyRefreshRequest, operators: OperatorsDep) -> KeyRefreshResult:
    """Call it after an issuer withdrew a key. The other replicas fetch the keys within two seconds."""
    return KeyRefreshResult(refreshed=await operators.tokens.refresh_keys(wanted.issuer))
