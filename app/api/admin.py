"""The operators' calls. The router as a whole is closed to everybody whom policy gives no operator's rights."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.api.admin_schemas import KeyRefreshes, KeyRefreshRequest, KeySetInfo, KeySets, NotBefore, NotBeforeRequest
from app.api.dependencies import WithParts, only_operators
from app.api.documentation import problems_of
from app.api.push_schemas import Attachments, AttachRequest

ConnectionId = Annotated[str, Path(pattern=r"^\d{1,20}$", description="Telnyx's id of the connection.")]

router = APIRouter(prefix="/v1/admin", tags=["Operators"], dependencies=[Depends(only_operators)])


@router.put(
    "/not-before",
    summary="Refuse tokens issued before a moment",
    responses=problems_of(
        "invalid_request", "refused", "issuer_not_found", "not_before_in_future", "ledger_unavailable"
    ),
)
async def refuse_tokens(wanted: NotBeforeRequest, parts: WithParts) -> NotBefore:
    """For a user, a session or a whole issuer, on every replica within two seconds. Devices stay: revoke them too."""
    return NotBefore.of(await parts.operations.refuse_tokens(wanted.target(), wanted.not_before))


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
async def attach(connection_id: ConnectionId, wanted: AttachRequest, parts: WithParts) -> Attachments:
    """One of each platform serves all devices of the connection. The answer says what was there before."""
    return Attachments.of(connection_id, await parts.attaching.attach(connection_id, wanted.wanted()))


@router.get("/keys", summary="How the issuers' keys are doing", responses=problems_of("refused"))
async def keys(parts: WithParts) -> KeySets:
    """As this replica has them."""
    return KeySets(data=[KeySetInfo.model_validate(status) for status in parts.verifier.key_sets()])


@router.post(
    "/keys/refresh",
    summary="Fetch issuers' keys now",
    responses=problems_of("invalid_request", "refused", "issuer_not_found", "ledger_unavailable"),
)
async def refresh_keys(wanted: KeyRefreshRequest, parts: WithParts) -> KeyRefreshes:
    """After a key was withdrawn in haste. The other replicas do the same within two seconds."""
    return KeyRefreshes(refreshed=await parts.operations.refresh_keys(wanted.issuer))
