"""Push credentials of all users."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.dependencies import OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.connections import PushObjectInfo, PushObjectList
from app.api.schemas.fields import DIGITS
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.get("/push-credentials", summary="List all push credentials", responses=problems_of("invalid_request"))
async def list_all_push_credentials(
    operators: OperatorsDep,
    limit: Annotated[int, Field(ge=1, le=1000), DIGITS, Query()] = 100,
) -> PushObjectList:
    """The push credentials at Telnyx, newest first. Users that registered the same material share one.

    An operator of some issuers sees what their users registered.
    """
    found = await operators.push_objects(limit)
    return PushObjectList(data=[PushObjectInfo.from_use(use) for use in found])
