"""What routes are given: who asks, the parts of the service, and the hand that writes answers."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.pagination import Presenter
from app.api.scope import PRINCIPAL
from app.composition.components import Parts
from app.vending.models import Principal


async def asking(request: Request) -> Principal:
    """Who asks. KeyError if the gate did not let them in."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal


async def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def presenter_of(request: Request) -> Presenter:
    presenter: Presenter = request.app.state.presenter
    return presenter


Asking = Annotated[Principal, Depends(asking)]
WithParts = Annotated[Parts, Depends(parts_of)]
WithPresenter = Annotated[Presenter, Depends(presenter_of)]


async def only_operators(asking: Asking, parts: WithParts) -> None:
    """Raises Refused. A router that depends on this is closed to users as a whole, whatever is added to it."""
    parts.policy.admit_operator(asking)
