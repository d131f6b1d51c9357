"""Push credentials of the caller: register, list, validate, replace and delete them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.dependencies import ComponentsDep, PrincipalDep
from app.api.middleware.body import PUSH_PATH
from app.api.openapi_responses import TELNYX, problems_of
from app.api.schemas.fields import ResourceId
from app.api.schemas.push_credentials import (
    IosMaterial,
    PushCredential,
    PushCredentialList,
    PushCredentialRequest,
    PushMaterial,
    PushMaterialReport,
)
from app.api.strict_route import StrictRoute
from app.composition.components import Components
from app.vending.push.material_errors import FAULT_MESSAGES, MaterialReport

router = APIRouter(prefix=PUSH_PATH, tags=["Push credentials"], route_class=StrictRoute)

PushCredentialId = Annotated[ResourceId, Path(description="The `id` of the push credential.")]

UPLOAD = ("invalid_request", *FAULT_MESSAGES, "push_not_allowed", "push_limit_reached", "push_alias_taken", *TELNYX)
"""Codes of the operations that upload material to Telnyx."""


@router.post(
    "",
    status_code=200,
    summary="Register a push credential",
    responses={
        200: {"description": "The same material was already registered under this alias."},
        201: {"model": PushCredential, "description": "Registered."},
        **problems_of(*UPLOAD),
    },
)
async def register_push_credential(
    wanted: PushCredentialRequest, principal: PrincipalDep, components: ComponentsDep, response: Response
) -> PushCredential:
    """Idempotent: the same material under the same alias is the same registration. PUT replaces material."""
    await components.push.registrar.authorize(principal)
    found, is_new = await components.push.registrar.register(principal, wanted.alias, await _linted(wanted, components))
    response.status_code = 201 if is_new else 200
    return PushCredential.from_registered(found)


@router.get("", summary="List the caller's push credentials", responses=problems_of("push_not_allowed"))
async def list_push_credentials(principal: PrincipalDep, components: ComponentsDep) -> PushCredentialList:
    """All push credentials that the caller registered, oldest first."""
    found = await components.push.registrar.list(principal)
    return PushCredentialList(data=[PushCredential.from_registered(item) for item in found])


@router.post("/lint", summary="Validate push material", responses=problems_of("invalid_request", "push_not_allowed"))
async def validate_push_material(
    wanted: PushMaterial, principal: PrincipalDep, components: ComponentsDep
) -> PushMaterialReport:
    """Reports every fault of the material. Nothing is stored or sent to Telnyx.

    The body is that of a registration, but `alias` is optional.
    """
    await components.push.registrar.authorize(principal)
    return PushMaterialReport.from_report(wanted.type, await _linted(wanted, components), components.clock())


@router.get(
    "/{id}",
    summary="Get a push credential",
    responses=problems_of("push_credential_not_found", "push_not_allowed"),
)
async def get_push_credential(
    id: PushCredentialId,  # noqa: A002 - the name in the contract
    principal: PrincipalDep,
    components: ComponentsDep,
) -> PushCredential:
    """One of the caller's push credentials, without its key material."""
    return PushCredential.from_registered(await components.push.registrar.get(principal, id))


@router.put(
    "/{id}",
    summary="Replace a push credential",
    responses=problems_of(*UPLOAD, "push_credential_not_found", "push_type_mismatch"),
)
async def replace_push_credential(
    id: PushCredentialId,  # noqa: A002
    wanted: PushCredentialRequest,
    principal: PrincipalDep,
    components: ComponentsDep,
) -> PushCredential:
    """Replaces the material and keeps the ID. Connections that used only the caller's old material get the new one."""
    await components.push.registrar.authorize(principal)
    found = await components.push.registrar.replace(principal, id, wanted.alias, await _linted(wanted, components))
    return PushCredential.from_registered(found)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a push credential",
    responses={
        204: {"description": "Deleted."},
        **problems_of("push_credential_not_found", "push_not_allowed"),
    },
)
async def delete_push_credential(
    id: PushCredentialId,  # noqa: A002
    principal: PrincipalDep,
    components: ComponentsDep,
) -> Response:
    """Deletes the registration. Dialtone deletes the material at Telnyx when no registration uses it any more."""
    await components.push.registrar.delete(principal, id)
    return Response(status_code=204)


async def _linted(wanted: PushMaterial | PushCredentialRequest, components: Components) -> MaterialReport:
    if isinstance(wanted, IosMaterial):
        return await components.push.validate_apns(wanted.certificate, wanted.private_key)
    return await components.push.validate_fcm(wanted.project_account_json_file)
