"""What routes are given: who asks, the components of the service, and the hand that writes answers."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.pagination import Presenter
from app.api.scope import PRINCIPAL
from app.composition.components import Components
from app.vending.models import Principal


async def asking(request: Request) -> Principal:
    """Who asks. KeyError if the gate did not let them in."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal


async def get_components(request: Request) -> Components:
    components: Components = request.app.state.components
    return components


async def presenter_of(request: Request) -> Presenter:
    presenter: Presenter = request.app.state.presenter
    return presenter


Asking = Annotated[Principal, Depends(asking)]
ComponentsDep = Annotated[Components, Depends(get_components)]
WithPresenter = Annotated[Presenter, Depends(presenter_of)]


async def only_operators(asking: Asking, components: ComponentsDep) -> None:
    """Raises Refused. A router that depends on this is closed to users as a whole, whatever is added to it."""
    components.identity.policy.admit_operator(asking)
