"""The status of the service."""

from fastapi import APIRouter

from app.api.dependencies import GlobalComponentsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.service_status import ServiceStatusInfo

router = APIRouter()


@router.get("/state", summary="Get the service status", responses=problems_of())
async def get_service_status(components: GlobalComponentsDep) -> ServiceStatusInfo:
    """Leases, warm pool, backlog and audit queue of the service, and the Telnyx calls of the responding replica."""
    await components.operators.leases.ensure_counted()
    await components.upkeep.warm_pool.ensure_counted()
    return ServiceStatusInfo.from_status(components.operators.service_status())
