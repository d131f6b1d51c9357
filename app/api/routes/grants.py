"""Grants: backends mint and revoke them. The public keys that verify them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.dependencies import ComponentsDep, PrincipalDep
from app.api.openapi_responses import HEALTH, problems_of
from app.api.schemas.fields import ResourceId
from app.api.schemas.grants import GrantMintRequest, MintedGrantInfo, PublicKeySet
from app.api.strict_route import StrictRoute

router = APIRouter(tags=["Grants"], route_class=StrictRoute)


@router.post(
    "/v1/grants", status_code=201, summary="Mint a grant", responses=problems_of("invalid_request", "access_denied")
)
async def mint_grant(wanted: GrantMintRequest, principal: PrincipalDep, components: ComponentsDep) -> MintedGrantInfo:
    """For a backend whose token has the scope `dialtone:grants`. The first device that uses the grant owns it."""
    return MintedGrantInfo.from_minted(await components.grants.minter.mint(principal, wanted.to_grant_request()))


@router.delete("/v1/grants/{id}", status_code=204, summary="Revoke a grant", responses=problems_of("grant_not_found"))
async def revoke_grant(
    id: Annotated[ResourceId, Path(description="The `id` of the grant.")],  # noqa: A002 - the name in the contract
    principal: PrincipalDep,
    components: ComponentsDep,
) -> Response:
    """For the backend that minted it. Logs out the device that used it."""
    await components.grants.revoker.revoke_own(principal, id)
    return Response(status_code=204)


@router.get(
    "/.well-known/jwks.json",
    summary="Get the public keys of grants",
    responses=problems_of(common=HEALTH),
)
async def get_grant_keys(components: ComponentsDep) -> PublicKeySet:
    """Without a key, the set is empty."""
    return PublicKeySet.model_validate(components.identity.grant_keys.jwks())
