"""FastAPI dependencies of routes: the caller, the components of the service, and the settings for clients."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.request_scope import PRINCIPAL
from app.api.schemas.client_settings import ClientSettings
from app.composition.components import Components
from app.vending.models import Principal


async def get_principal(request: Request) -> Principal:
    """The authenticated caller. KeyError if the authentication middleware did not run."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal


async def get_components(request: Request) -> Components:
    components: Components = request.app.state.components
    return components


async def get_client_settings(request: Request) -> ClientSettings:
    settings: ClientSettings = request.app.state.client_settings
    return settings


PrincipalDep = Annotated[Principal, Depends(get_principal)]
ComponentsDep = Annotated[Components, Depends(get_components)]
ClientSettingsDep = Annotated[ClientSettings, Depends(get_client_settings)]


async def require_operator(principal: PrincipalDep, components: ComponentsDep) -> None:
    """Raises AccessDenied unless the caller is an operator. Guards every route of the router that depends on it."""
    components.identity.policy.authorize_operator(principal)
