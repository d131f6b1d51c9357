"""Grants: revoke one, those of a backend, or all."""

from fastapi import APIRouter

from app.api.dependencies import GlobalComponentsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.grants import GrantRevocationRequest, GrantRevocationResult
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.post(
    "/grant-revocations",
    summary="Revoke grants",
    responses=problems_of("invalid_request", "not_confirmed", "grant_not_found"),
)
async def revoke_grants(wanted: GrantRevocationRequest, components: GlobalComponentsDep) -> GrantRevocationResult:
    """Rejects the grants on every replica within two seconds, and logs out the devices that used them."""
    revoker = components.grants.revoker
    if wanted.grant_id is not None:
        return GrantRevocationResult.from_revocation(await revoker.revoke(wanted.grant_id))
    components.operators.leases.check_confirmed(wanted.confirm)
    return GrantRevocationResult.from_revocation(await revoker.revoke_all(wanted.backend()))
