"""Sweeps that operators start, and their reports."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import Instant, StrictRequest
from app.vending.upkeep.sweep_jobs import SweepJob, SweepJobState

RUN_EXAMPLE: dict[str, Any] = {
    "id": "5b1e0c7d2f3a4b6c8d9e0f1a2b3c4d5e",
    "state": "done",
    "started_at": "2026-11-23T09:30:00.000Z",
    "ended_at": "2026-11-23T09:30:04.000Z",
    "reason": None,
    "report": {
        "dry_run": True,
        "ended": 0,
        "due": [],
        "irrevocable": [],
        "walked": 1204,
        "foreign": 31,
        "young": 4,
        "orphans": [{"credential": "dialtone-0b8f9d4e5a6c47d1a2b3c4d5e6f70812", "why": "no lease of that name"}],
        "deleted_orphans": 0,
    },
    "status_url": "/v1/admin/sweeps/5b1e0c7d2f3a4b6c8d9e0f1a2b3c4d5e",
}


class SweepRequest(StrictRequest):
    """Whether to delete, or only to report what would be deleted."""

    dry_run: bool = True
    force: bool = Field(False, description="Delete even if the ledger has never had a lease.")


class SweepRun(BaseModel):
    """A sweep that an operator started, with its report when it is done."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN_EXAMPLE]})

    id: str
    state: SweepJobState
    started_at: Instant
    ended_at: Instant | None
    reason: str | None = Field(description="Why it failed.")
    report: dict[str, Any] | None
    status_url: str = Field(description="Path of this sweep.")

    @classmethod
    def from_run(cls, run: SweepJob) -> Self:
        return cls(
            id=run.id,
            state=run.state,
            started_at=run.started_at,
            ended_at=run.ended_at,
            reason=run.reason,
            report=run.report,
            status_url=f"/v1/admin/sweeps/{run.id}",
        )
