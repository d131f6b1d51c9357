"""The operators' API under /v1/admin. The router requires an operator for every route below it."""

from fastapi import APIRouter, Depends

from app.api.dependencies import require_operator
from app.api.routes.admin import audit, connections, keys, leases, not_before, service_status, sweeps

router = APIRouter(prefix="/v1/admin", tags=["Operators"], dependencies=[Depends(require_operator)])
for resource in (not_before, connections, keys, leases, audit, service_status, sweeps):
    router.include_router(resource.router)
