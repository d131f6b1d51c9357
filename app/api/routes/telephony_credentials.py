"""Telephony credentials of the caller: issue and refresh logins, list and update devices, revoke."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.routing import APIRoute
from pydantic import Field

from app.api.dependencies import ClientSettingsDep, ComponentsDep, PrincipalDep
from app.api.openapi_responses import OUTBOUND, TELNYX, problems_of
from app.api.pagination import Cursor, fetch_page
from app.api.schemas.fields import DIGITS, PresenceFlag, ResourceId
from app.api.schemas.telephony_credentials import (
    RevocationPending,
    TelephonyCredential,
    TelephonyCredentialChange,
    TelephonyCredentialInfo,
    TelephonyCredentialPage,
    TelephonyCredentialRequest,
)
from app.api.strict_route import StrictRoute

router = APIRouter(prefix="/v1/telephony-credentials", tags=["Telephony credentials"], route_class=StrictRoute)


LeaseId = Annotated[ResourceId, Path(description="The `id` of the credential.")]

REVOCATIONS: dict[int | str, dict[str, Any]] = {
    202: {
        "model": RevocationPending,
        "description": "Logged out; Dialtone is still retrying the deletion at Telnyx.",
    },
    204: {"description": "Logged out; Telnyx has confirmed the deletion."},
}


@router.post(
    "",
    status_code=200,
    summary="Issue a login for a device",
    response_model_exclude_none=True,
    responses={
        200: {"description": "The login of a known device: cached or renewed. Its SIP identity stays the same."},
        201: {"model": TelephonyCredential, "description": "A new credential was created for this device."},
        **problems_of("invalid_request", "grant_not_allowed", "device_limit_reached", *TELNYX, *OUTBOUND),
    },
)
async def issue_telephony_credential(
    wanted: TelephonyCredentialRequest,
    principal: PrincipalDep,
    components: ComponentsDep,
    settings: ClientSettingsDep,
    response: Response,
) -> TelephonyCredential:
    """Idempotent per device. Call it on every page load and after `refresh_after`.

    The SIP identity stays the same, unless policy limits the age of credentials.
    """
    login = await components.telephony.issuer.issue(principal, wanted.to_issue_request())
    response.status_code = 201 if login.is_new else 200
    return TelephonyCredential.from_login(login, settings, components.clock())


@router.get("", summary="List the caller's devices", responses=problems_of("invalid_request", "invalid_cursor"))
async def list_devices(
    principal: PrincipalDep,
    components: ComponentsDep,
    settings: ClientSettingsDep,
    presence: Annotated[PresenceFlag, Query()] = False,
    limit: Annotated[int, Field(ge=1, le=100), DIGITS, Query()] = 20,
    cursor: Annotated[Cursor, Query()] = None,
) -> TelephonyCredentialPage:
    """The caller's devices with their credentials, newest first. Contains no secret."""
    found = await fetch_page(
        partial(components.telephony.devices.list, principal),
        lambda lease: (lease.created_at, lease.id),
        limit=limit,
        cursor=cursor,
    )
    online = await components.telephony.presence.online(found.rows if presence else [])
    now = components.clock()
    data = [TelephonyCredentialInfo.from_lease(lease, settings, now, online.get(lease.id)) for lease in found.rows]
    return TelephonyCredentialPage(data=data, next_cursor=found.next_cursor)


@router.get("/{id}", summary="Get a device", responses=problems_of("credential_not_found"))
async def get_device(
    id: LeaseId,  # noqa: A002 - the name in the contract
    principal: PrincipalDep,
    components: ComponentsDep,
    settings: ClientSettingsDep,
    presence: Annotated[PresenceFlag, Query()] = False,
) -> TelephonyCredentialInfo:
    """One of the caller's devices with its credential. Contains no secret."""
    lease = await components.telephony.devices.get(principal, id)
    online = await components.telephony.presence.online([lease] if presence else [])
    return TelephonyCredentialInfo.from_lease(lease, settings, components.clock(), online.get(lease.id))


@router.patch(
    "/{id}",
    summary="Update a device",
    responses=problems_of("invalid_request", "credential_not_found", "credential_ended", *TELNYX, *OUTBOUND),
)
async def update_device(
    id: LeaseId,  # noqa: A002
    wanted: TelephonyCredentialChange,
    principal: PrincipalDep,
    components: ComponentsDep,
    settings: ClientSettingsDep,
) -> TelephonyCredentialInfo:
    """Changes the label or the lifetime. Omitted fields keep their value."""
    lease = await components.telephony.devices.update(principal, id, wanted.to_change())
    return TelephonyCredentialInfo.from_lease(lease, settings, components.clock())


@router.post(
    "/{id}/token",
    summary="Refresh a device's login",
    response_model_exclude_none=True,
    responses=problems_of("credential_not_found", "credential_ended", *TELNYX, *OUTBOUND),
)
async def refresh_telephony_credential(
    id: LeaseId,  # noqa: A002
    principal: PrincipalDep,
    components: ComponentsDep,
    settings: ClientSettingsDep,
) -> TelephonyCredential:
    """Mints a new login token on the existing credential. It never creates a credential."""
    login = await components.telephony.issuer.refresh(principal, id)
    return TelephonyCredential.from_login(login, settings, components.clock())


@router.delete(
    "/{id}",
    status_code=204,
    summary="Revoke a device's credential",
    responses={**REVOCATIONS, **problems_of("credential_not_found")},
)
async def revoke_telephony_credential(
    id: LeaseId,  # noqa: A002
    principal: PrincipalDep,
    components: ComponentsDep,
) -> Response:
    """Logs the device out. Idempotent. Telnyx decides whether a call in progress ends."""
    return revoked(is_confirmed=await components.telephony.revoker.revoke(principal, id))


@router.delete(
    "",
    status_code=204,
    summary="Revoke all of the caller's credentials",
    responses={**REVOCATIONS, **problems_of("invalid_request")},
)
async def revoke_all_telephony_credentials(principal: PrincipalDep, components: ComponentsDep) -> Response:
    """Logs the caller out on every device."""
    return revoked(is_confirmed=await components.telephony.revoker.revoke_all(principal))


ISSUE = next(
    route for route in router.routes if isinstance(route, APIRoute) and route.endpoint is issue_telephony_credential
)
"""The route that receives most requests."""


def revoked(*, is_confirmed: bool) -> Response:
    if is_confirmed:
        return Response(status_code=204)
    return Response(RevocationPending().model_dump_json(), status_code=202, media_type="application/json")
