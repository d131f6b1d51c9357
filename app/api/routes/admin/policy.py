"""The policy in effect."""

from fastapi import APIRouter

from app.api.dependencies import ComponentsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.policy import PolicyInfo

router = APIRouter()


@router.get("/policy", summary="Get the policy", responses=problems_of())
async def get_policy(components: ComponentsDep) -> PolicyInfo:
    """The rules that the responding replica applies. A reload changes them."""
    return PolicyInfo.from_policy(components.identity.policy.policy)
