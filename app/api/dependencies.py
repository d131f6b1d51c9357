"""FastAPI dependencies of routes: the caller, the components of the service, and the settings for clients."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.request_scope import PRINCIPAL, VISIBILITY
from app.api.schemas.client_settings import ClientSettings
from app.composition.components import Components, OperatorComponents
from app.vending.models import Principal
from app.vending.telephony.presence import Presence
from app.vending.visibility import Visibility


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


async def get_presence(components: Annotated[Components, Depends(get_components)]) -> Presence:
    return components.telephony.presence


PrincipalDep = Annotated[Principal, Depends(get_principal)]
ComponentsDep = Annotated[Components, Depends(get_components)]
ClientSettingsDep = Annotated[ClientSettings, Depends(get_client_settings)]
PresenceDep = Annotated[Presence, Depends(get_presence)]


async def require_operator(request: Request, principal: PrincipalDep, components: ComponentsDep) -> None:
    """Raises AccessDenied unless the caller is an operator. Guards every route of the router that depends on it."""
    request.scope[VISIBILITY] = components.identity.policy.authorize_operator(principal)


async def get_operators(request: Request, components: ComponentsDep) -> OperatorComponents:
    """The operator actions, limited to what the operator may see. KeyError if the guard did not run."""
    visibility: Visibility = request.scope[VISIBILITY]
    return components.operators.visible_to(visibility)


async def get_global_components(request: Request, components: ComponentsDep) -> Components:
    """All components, for an operation that concerns the whole service. Raises AccessDenied for a bound operator."""
    visibility: Visibility = request.scope[VISIBILITY]
    visibility.check_all()
    return components


OperatorsDep = Annotated[OperatorComponents, Depends(get_operators)]
"""For an admin route that returns or changes only what its operator may see."""

GlobalComponentsDep = Annotated[Components, Depends(get_global_components)]
"""For an admin route that requires an operator of all issuers. Admin routes use no other access to the components."""
