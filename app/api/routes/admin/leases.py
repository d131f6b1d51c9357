"""Leases: find, show and revoke them; a user's SIP addresses; the lease of a SIP username."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from app.api.dependencies import ComponentsDep, WithPresenter
from app.api.openapi import problems_of
from app.api.pagination import decode_cursor, encode_cursor
from app.api.routes.telephony_credentials import REVOCATIONS, LeaseId, revoked
from app.api.schemas.fields import IssuerName, Subject
from app.api.schemas.leases import (
    DialableList,
    LeaseInfo,
    LeasePage,
    LeaseQuery,
    RevocationRequest,
    Revocations,
    SipUsername,
)
from app.vending.models import Owner
from app.vending.not_before import Reach, Target

router = APIRouter()

STARTED: dict[int | str, dict[str, Any]] = {202: {"description": "Logged out; Telnyx is told in the background."}}


@router.get(
    "/leases", summary="Find leases", responses=problems_of("invalid_request", "invalid_cursor", "ledger_unavailable")
)
async def page(
    wanted: Annotated[LeaseQuery, Query()],
    components: ComponentsDep,
    present: WithPresenter,
) -> LeasePage:
    """By user, device, platform, state, connection, SIP username, or any of them together."""
    after = decode_cursor(wanted.cursor) if wanted.cursor else None
    leases = await components.operators.leases.page(wanted.criteria(), after, wanted.limit + 1)
    shown = leases[: wanted.limit]
    return LeasePage(
        data=[present.lease(lease) for lease in shown],
        next_cursor=encode_cursor(shown[-1].created_at, shown[-1].id) if len(leases) > wanted.limit else None,
    )


@router.get("/leases/{id}", summary="Show a lease", responses=problems_of("credential_not_found", "ledger_unavailable"))
async def show(
    id: LeaseId,  # noqa: A002 - the name in the contract
    components: ComponentsDep,
    present: WithPresenter,
) -> LeaseInfo:
    return present.lease(await components.operators.leases.show(id))


@router.delete(
    "/leases/{id}",
    status_code=204,
    summary="Log one device out",
    responses={**REVOCATIONS, **problems_of("credential_not_found", "ledger_unavailable")},
)
async def revoke(
    id: LeaseId,  # noqa: A002
    components: ComponentsDep,
) -> Response:
    """The device may come back as long as its user's token is good: `PUT /v1/admin/not-before` ends that."""
    return revoked(is_confirmed=await components.operators.leases.revoke(id))


@router.post(
    "/revocations",
    status_code=202,
    summary="Log out a user, a connection or everybody",
    responses={**STARTED, **problems_of("invalid_request", "not_confirmed", "issuer_not_found", "ledger_unavailable")},
)
async def revoke_many(wanted: RevocationRequest, components: ComponentsDep) -> Revocations:
    """What reaches beyond one user wants `confirm`. With `refuse_tokens` the user has to sign in again."""
    owner = wanted.owner()
    if owner is None:
        components.operators.leases.check_confirmed(wanted.confirm)
    elif wanted.refuse_tokens:
        # First, so that no device of theirs slips in between.
        await components.operators.tokens.refuse_tokens(Target(owner.issuer, Reach.USER, owner.subject), None)
    ended = await components.operators.leases.revoke_matching(wanted.criteria())
    return Revocations(revoked=ended.count, is_all=ended.is_all, look_at="/v1/admin/leases?state=revoking")


@router.get(
    "/dialable",
    summary="Where a user can be rung now",
    responses=problems_of("invalid_request", "ledger_unavailable"),
)
async def dialable(
    issuer: Annotated[IssuerName, Query(description="The `iss` of the user's tokens.")],
    subject: Annotated[Subject, Query(description="The user.")],
    components: ComponentsDep,
    present: WithPresenter,
) -> DialableList:
    """For the voice backend: ring all of these. A phone that sleeps is rung too; Telnyx wakes it by push."""
    return present.dialable(await components.operators.leases.dialable(Owner(issuer, subject)))


@router.get(
    "/sip-users/{sip_username}",
    summary="Who is behind a SIP username",
    responses=problems_of("credential_not_found", "ledger_unavailable"),
)
async def behind(
    sip_username: Annotated[SipUsername, Path(description="As in `From` of a call.")],
    components: ComponentsDep,
    present: WithPresenter,
) -> LeaseInfo:
    """Whose lease it is, or was: look at `state`."""
    return present.lease(await components.operators.leases.behind(sip_username))
