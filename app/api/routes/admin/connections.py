"""Push credentials that a Telnyx connection uses."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.dependencies import GlobalComponentsDep
from app.api.openapi_responses import TELNYX, problems_of
from app.api.schemas.connections import Attachments, AttachRequest
from app.api.schemas.fields import ConnectionId
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.put(
    "/connections/{connection_id}/push-credentials",
    summary="Attach push credentials to a connection",
    responses=problems_of(
        "invalid_request", "connection_not_found", "push_credential_not_found", "push_type_mismatch", *TELNYX
    ),
)
async def attach_push_credentials(
    connection_id: Annotated[ConnectionId, Path(description="Telnyx's ID of the connection.")],
    wanted: AttachRequest,
    components: GlobalComponentsDep,
) -> Attachments:
    """One push credential of each platform serves all devices of the connection. Returns the previous state too."""
    found = await components.push.attachments.attach(connection_id, wanted.wanted())
    return Attachments.from_attachments(connection_id, found)
