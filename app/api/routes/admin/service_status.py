"""The state of the service."""

from fastapi import APIRouter

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.schemas.service_status import State

router = APIRouter()


@router.get("/state", summary="How the service stands", responses=problems_of("refused"))
async def state(components: ComponentsDep) -> State:
    return State.from_status(components.operators.service_status())
