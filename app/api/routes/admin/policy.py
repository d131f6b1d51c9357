"""The policy in effect."""

from fastapi import APIRouter

from app.api.dependencies import OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.policy import PolicyInfo

router = APIRouter()


@router.get("/policy", summary="Get the policy", responses=problems_of())
async def get_policy(operators: OperatorsDep) -> PolicyInfo:
    """The rules that the responding replica applies. A reload changes them.

    An operator of some issuers sees the rules that apply to these issuers.
    """
    return PolicyInfo.from_policy(operators.policy.policy, operators.visibility)
