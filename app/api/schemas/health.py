"""Schemas of the health checks and the version."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Liveness(BaseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


class ReadinessReport(BaseModel):
    """Whether this replica should receive traffic, with the state of each dependency."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "ready", "checks": {"ledger": "ok", "identity": "ok", "telnyx": "degraded"}}]
        }
    )

    status: Literal["ready", "draining", "not ready"]
    checks: dict[str, Literal["ok", "degraded", "failed"]] = Field(
        description="`degraded`: unavailable, but devices that have a login keep working. `failed`: not ready."
    )


class Version(BaseModel):
    """The running version."""

    name: Literal["dialtone"] = "dialtone"
    version: str = Field(examples=["0.2.0"])
