"""Leases: list, get and revoke them; a user's dialable devices; the lease of a SIP username."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from app.api.dependencies import ClientSettingsDep, OperatorsDep, PresenceDep
from app.api.openapi_responses import problems_of
from app.api.pagination import fetch_page
from app.api.routes.telephony_credentials import REVOCATIONS, LeaseId, revoked
from app.api.schemas.fields import IssuerName, PresenceFlag, SipUsername, Subject
from app.api.schemas.leases import (
    DialableDevice,
    DialableDeviceList,
    LeaseInfo,
    LeasePage,
    LeaseQuery,
    RevocationRequest,
    RevocationResult,
)
from app.api.strict_route import StrictRoute
from app.vending.models import UserKey
from app.vending.not_before import NotBeforeTarget, Reach

router = APIRouter(route_class=StrictRoute)

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "Logged out; Dialtone deletes the credentials at Telnyx in the background."}
}


@router.get("/leases", summary="List leases", responses=problems_of("invalid_request", "invalid_cursor"))
async def list_leases(
    wanted: Annotated[LeaseQuery, Query()],
    operators: OperatorsDep,
    registrations: PresenceDep,
    settings: ClientSettingsDep,
) -> LeasePage:
    """Leases that match every given filter, newest first."""
    found = await fetch_page(
        partial(operators.leases.search, wanted.criteria()),
        lambda lease: (lease.created_at, lease.id),
        limit=wanted.limit,
        cursor=wanted.cursor,
    )
    online = await registrations.online(found.rows if wanted.presence else [])
    data = [LeaseInfo.from_lease(lease, settings, online.get(lease.id)) for lease in found.rows]
    return LeasePage(data=data, next_cursor=found.next_cursor)


@router.get("/leases/{id}", summary="Get a lease", responses=problems_of("credential_not_found"))
async def get_lease(
    id: LeaseId,  # noqa: A002 - the name in the contract
    operators: OperatorsDep,
    registrations: PresenceDep,
    settings: ClientSettingsDep,
    presence: Annotated[PresenceFlag, Query()] = False,
) -> LeaseInfo:
    """One lease of any user, as stored in the ledger."""
    lease = await operators.leases.get(id)
    online = await registrations.online([lease] if presence else [])
    return LeaseInfo.from_lease(lease, settings, online.get(lease.id))


@router.delete(
    "/leases/{id}",
    status_code=204,
    summary="Revoke a lease",
    responses={**REVOCATIONS, **problems_of("credential_not_found")},
)
async def revoke_lease(
    id: LeaseId,  # noqa: A002
    operators: OperatorsDep,
) -> Response:
    """Logs one device out. It can log in again unless its user's tokens are rejected: `PUT /v1/admin/not-before`."""
    return revoked(is_confirmed=await operators.leases.revoke(id))


@router.post(
    "/revocations",
    status_code=202,
    summary="Revoke many leases",
    responses={**ACCEPTED, **problems_of("invalid_request", "not_confirmed", "issuer_not_found")},
)
async def revoke_leases(wanted: RevocationRequest, operators: OperatorsDep) -> RevocationResult:
    """Logs out a user, a connection or every user. More than one user requires `confirm`.

    With `refuse_tokens` the user must sign in again before a device can log in.
    """
    user_key = wanted.user_key()
    if user_key is None:
        operators.leases.check_confirmed(wanted.confirm)
    elif wanted.refuse_tokens:
        # Set before the revocation. Otherwise a device could log in between the two and keep its login.
        await operators.tokens.set_not_before(NotBeforeTarget(user_key.issuer, Reach.USER, user_key.subject), None)
    return RevocationResult.from_ended(await operators.leases.revoke_matching(wanted.criteria()))


@router.get("/dialable", summary="List a user's dialable devices", responses=problems_of("invalid_request"))
async def list_dialable_devices(
    issuer: Annotated[IssuerName, Query(description="The `iss` of the user's tokens.")],
    subject: Annotated[Subject, Query(description="The user, as the issuer names them.")],
    operators: OperatorsDep,
    registrations: PresenceDep,
    settings: ClientSettingsDep,
    presence: Annotated[PresenceFlag, Query()] = False,
) -> DialableDeviceList:
    """For the voice backend: dial all of these addresses. Telnyx wakes a sleeping phone by push, so dial a phone too if
    `online` is false. Without `presence=true`, the response says which devices have a usable login and when they last
    got one from Dialtone, but not whether they are registered with Telnyx.
    """
    leases = await operators.leases.dialable(UserKey(issuer, subject))
    online = await registrations.online(leases if presence else [])
    data = [DialableDevice.from_lease(lease, settings, online.get(lease.id)) for lease in leases]
    return DialableDeviceList(data=data)


@router.get(
    "/sip-users/{sip_username}",
    summary="Get the lease of a SIP username",
    responses=problems_of("credential_not_found"),
)
async def get_lease_by_sip_username(
    sip_username: Annotated[SipUsername, Path(description="As in the `From` header of a call.")],
    operators: OperatorsDep,
    settings: ClientSettingsDep,
) -> LeaseInfo:
    """The lease that the SIP username belongs to. It may have ended: see `state`."""
    return LeaseInfo.from_lease(await operators.leases.get_by_sip_username(sip_username), settings)
