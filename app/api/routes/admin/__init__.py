"""The operators' API under /v1/admin. The router requires an operator for every route below it."""

from fastapi import APIRouter, Depends

from app.api.dependencies import require_operator
from app.api.routes.admin import (
    audit,
    connections,
    erasures,
    events,
    grants,
    keys,
    leases,
    not_before,
    policy,
    push_credentials,
    service_status,
    sweeps,
)

PREFIX = "/v1/admin"
RESOURCES = (
    *(not_before, connections, push_credentials, keys, policy, leases, erasures, grants),
    *(audit, events, service_status, sweeps),
)

router = APIRouter(prefix=PREFIX, tags=["Operators"], dependencies=[Depends(require_operator)])
for resource in RESOURCES:
    router.include_router(resource.router)
