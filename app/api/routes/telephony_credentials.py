"""The seven calls on telephony credentials. Each translates, calls one thing, and translates back."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.routing import APIRoute

from app.api.dependencies import Asking, ComponentsDep, WithPresenter
from app.api.openapi import problems_of
from app.api.pagination import decode_cursor, encode_cursor
from app.api.schemas.telephony_credentials import (
    Revocation,
    TelephonyCredential,
    TelephonyCredentialChange,
    TelephonyCredentialInfo,
    TelephonyCredentialPage,
    TelephonyCredentialRequest,
)
from app.vending.telephony.devices import Change

router = APIRouter(prefix="/v1/telephony-credentials", tags=["Telephony credentials"])


LeaseId = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{1,64}$", description="The `id` of an earlier answer.")]

REVOCATIONS: dict[int | str, dict[str, Any]] = {
    202: {"model": Revocation, "description": "Logged out here; Telnyx has not yet confirmed."},
    204: {"description": "Logged out; Telnyx has confirmed."},
}


@router.post(
    "",
    status_code=200,
    summary="Give this device a login",
    response_model_exclude_none=True,
    responses={
        200: {"description": "The login of this device: at hand or renewed. Its SIP identity stays."},
        201: {"model": TelephonyCredential, "description": "A new credential was made for this device."},
        **problems_of("invalid_request", "grant_not_allowed", "device_limit_reached", "busy", "carrier_rejected"),
    },
)
async def issue(
    wanted: TelephonyCredentialRequest,
    asking: Asking,
    components: ComponentsDep,
    present: WithPresenter,
    response: Response,
) -> TelephonyCredential:
    """Idempotent by device: ask on every page load and from `refresh_after` on; a device keeps its SIP identity."""
    login = await components.telephony.issuer.issue(asking, wanted.as_noun())
    response.status_code = 201 if login.is_new else 200
    return present.login(login, components.clock())


@router.get("", summary="List my devices", responses=problems_of("invalid_cursor", "ledger_unavailable"))
async def page(
    asking: Asking,
    components: ComponentsDep,
    present: WithPresenter,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256, description="`next_cursor` of the page before.")] = None,
) -> TelephonyCredentialPage:
    after = decode_cursor(cursor) if cursor else None
    leases = await components.telephony.devices.page(asking, after, limit + 1)
    now = components.clock()
    return TelephonyCredentialPage(
        data=[present.info(lease, now) for lease in leases[:limit]],
        next_cursor=encode_cursor(leases[limit - 1].created_at, leases[limit - 1].id) if len(leases) > limit else None,
    )


@router.get(
    "/{id}",
    summary="Show one of my devices",
    responses=problems_of("credential_not_found", "ledger_unavailable"),
)
async def show(
    id: LeaseId,  # noqa: A002 - the name in the contract
    asking: Asking,
    components: ComponentsDep,
    present: WithPresenter,
) -> TelephonyCredentialInfo:
    return present.info(await components.telephony.devices.show(asking, id), components.clock())


@router.patch(
    "/{id}",
    summary="Change a device's label or lifetime",
    responses=problems_of("invalid_request", "credential_not_found", "credential_ended", "busy", "carrier_rejected"),
)
async def change(
    id: LeaseId,  # noqa: A002
    wanted: TelephonyCredentialChange,
    asking: Asking,
    components: ComponentsDep,
    present: WithPresenter,
) -> TelephonyCredentialInfo:
    wish = Change("label" in wanted.model_fields_set, wanted.label, wanted.ttl_seconds)
    return present.info(await components.telephony.devices.change(asking, id, wish), components.clock())


@router.post(
    "/{id}/token",
    summary="A fresh login token for a device",
    response_model_exclude_none=True,
    responses=problems_of("credential_not_found", "credential_ended", "busy", "carrier_rejected"),
)
async def refresh(
    id: LeaseId,  # noqa: A002
    asking: Asking,
    components: ComponentsDep,
    present: WithPresenter,
) -> TelephonyCredential:
    return present.login(await components.telephony.issuer.refresh(asking, id), components.clock())


@router.delete(
    "/{id}",
    status_code=204,
    summary="Log a device out",
    responses={**REVOCATIONS, **problems_of("credential_not_found", "ledger_unavailable")},
)
async def revoke(
    id: LeaseId,  # noqa: A002
    asking: Asking,
    components: ComponentsDep,
) -> Response:
    """Revoking twice is no error. Whether a call in progress is cut is Telnyx's decision."""
    return revoked(is_confirmed=await components.telephony.revoker.revoke(asking, id))


@router.delete(
    "",
    status_code=204,
    summary="Log me out everywhere",
    responses={**REVOCATIONS, **problems_of("ledger_unavailable")},
)
async def revoke_all(asking: Asking, components: ComponentsDep) -> Response:
    return revoked(is_confirmed=await components.telephony.revoker.revoke_all(asking))


ISSUE = next(route for route in router.routes if isinstance(route, APIRoute) and route.endpoint is issue)
"""What most requests are for."""


def revoked(*, is_confirmed: bool) -> Response:
    if is_confirmed:
        return Response(status_code=204)
    return Response(Revocation().model_dump_json(), status_code=202, media_type="application/json")
