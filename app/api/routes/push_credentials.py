"""The calls on push credentials. Each translates, calls one thing, and translates back."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.dependencies import Asking, ComponentsDep
from app.api.middleware.body import PUSH
from app.api.openapi import problems_of
from app.api.schemas.push_credentials import (
    IosMaterial,
    PushCredential,
    PushCredentialList,
    PushCredentialRequest,
    PushLintReport,
    PushMaterial,
)
from app.composition.components import Components
from app.vending.push.material_errors import SENTENCES, Report

router = APIRouter(prefix=PUSH, tags=["Push credentials"])

Id = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{1,64}$", description="The `id` of an earlier answer.")]

REFUSALS = ("invalid_request", "push_not_allowed", *SENTENCES)
UPLOADS = (*REFUSALS, "push_limit_reached", "push_alias_taken", "busy", "carrier_rejected", "ledger_unavailable")


@router.post(
    "",
    status_code=200,
    summary="Register a push credential",
    responses={
        200: {"description": "You had registered the same before."},
        201: {"model": PushCredential, "description": "Registered."},
        **problems_of(*UPLOADS),
    },
)
async def register(
    wanted: PushCredentialRequest, asking: Asking, components: ComponentsDep, response: Response
) -> PushCredential:
    """The same material under the same alias, twice, is the same registration. Other material is replaced by PUT."""
    components.push.registrar.admit(asking)
    found, is_new = await components.push.registrar.register(asking, wanted.alias, await _linted(wanted, components))
    response.status_code = 201 if is_new else 200
    return PushCredential.of(found)


@router.get("", summary="List my push credentials", responses=problems_of("push_not_allowed", "ledger_unavailable"))
async def all_of(asking: Asking, components: ComponentsDep) -> PushCredentialList:
    return PushCredentialList(
        data=[PushCredential.of(found) for found in await components.push.registrar.all_of(asking)]
    )


@router.post("/lint", summary="Check push material", responses=problems_of("invalid_request", "push_not_allowed"))
async def lint(wanted: PushMaterial, asking: Asking, components: ComponentsDep) -> PushLintReport:
    """Stores and sends nothing."""
    components.push.registrar.admit(asking)
    return PushLintReport.of(wanted.type, await _linted(wanted, components), components.clock())


@router.get(
    "/{id}",
    summary="Show one of my push credentials",
    responses=problems_of("push_credential_not_found", "push_not_allowed", "ledger_unavailable"),
)
async def show(
    id: Id,  # noqa: A002 - the name in the contract
    asking: Asking,
    components: ComponentsDep,
) -> PushCredential:
    return PushCredential.of(await components.push.registrar.show(asking, id))


@router.put(
    "/{id}",
    summary="Replace a push credential",
    responses=problems_of(*UPLOADS, "push_credential_not_found", "push_type_mismatch"),
)
async def replace(
    id: Id,  # noqa: A002
    wanted: PushCredentialRequest,
    asking: Asking,
    components: ComponentsDep,
) -> PushCredential:
    """New material under the same id, without a gap. A connection that used the old one follows, if only you had it."""
    components.push.registrar.admit(asking)
    return PushCredential.of(
        await components.push.registrar.replace(asking, id, wanted.alias, await _linted(wanted, components))
    )


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a push credential",
    responses={
        204: {"description": "No longer registered."},
        **problems_of("push_credential_not_found", "push_not_allowed", "ledger_unavailable"),
    },
)
async def leave(
    id: Id,  # noqa: A002
    asking: Asking,
    components: ComponentsDep,
) -> Response:
    await components.push.registrar.leave(asking, id)
    return Response(status_code=204)


async def _linted(wanted: PushMaterial | PushCredentialRequest, components: Components) -> Report:
    if isinstance(wanted, IosMaterial):
        return await components.push.validate_apns(wanted.certificate, wanted.private_key)
    return await components.push.validate_fcm(wanted.project_account_json_file)
