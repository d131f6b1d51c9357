"""Push credentials that a Telnyx connection uses."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.schemas.connections import Attachments, AttachRequest

ConnectionId = Annotated[str, Path(pattern=r"^\d{1,20}$", description="Telnyx's id of the connection.")]

router = APIRouter()


@router.put(
    "/connections/{connection_id}/push-credentials",
    summary="Attach push credentials to a connection",
    responses=problems_of(
        "invalid_request",
        "refused",
        "connection_not_found",
        "push_credential_not_found",
        "push_type_mismatch",
        "carrier_rejected",
        "busy",
        "ledger_unavailable",
    ),
)
async def attach(connection_id: ConnectionId, wanted: AttachRequest, components: ComponentsDep) -> Attachments:
    """One of each platform serves all devices of the connection. The answer says what was there before."""
    return Attachments.of(connection_id, await components.push.attachments.attach(connection_id, wanted.wanted()))
