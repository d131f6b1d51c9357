"""Erasing a user: the request and its result."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.schemas.fields import IssuerName, StrictRequest, Subject
from app.vending.models import UserKey
from app.vending.operators.erasure import Erasure, ErasureCounts


class ErasureRequest(StrictRequest):
    """The user to erase."""

    issuer: IssuerName = Field(description="The `iss` of the user's tokens.", examples=["https://id.example.com"])
    subject: Subject = Field(description="The user, as the issuer names them.")
    dry_run: bool = Field(False, description="Only count what an erasure would change.")
    refuse_tokens: bool = Field(
        False, description="Also reject the user's tokens issued before now. Otherwise the devices can log in again."
    )
    confirm: str | None = Field(
        None, max_length=64, description="The namespace (DIALTONE_NAMESPACE). Required unless `dry_run` is true."
    )

    def user_key(self) -> UserKey:
        return UserKey(self.issuer, self.subject)


EXAMPLE: dict[str, JsonValue] = {
    "dry_run": False,
    "leases": 3,
    "credentials": 2,
    "push_registrations": 1,
    "audit_events": 412,
    "pseudonym": "erased-5f8d6c1a0b7e4c3d9a2f1e0b6c5d4a39",
    "complete": True,
    "unconfirmed": 2,
}


class ErasureResult(BaseModel):
    """The result of an erasure, or of its dry run."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    dry_run: bool
    leases: int = Field(description="Leases in the ledger, ended ones included.")
    credentials: int = Field(description="Leases that had a credential at Telnyx.")
    push_registrations: int
    audit_events: int = Field(description="Audit events about the user, or with the user as the actor.")
    pseudonym: str | None = Field(description="The user's name in the audit from now on. Null after a dry run.")
    complete: bool = Field(description="False if audit events are left: repeat the request to erase the rest.")
    unconfirmed: int = Field(description="Credentials whose deletion Telnyx has not confirmed. Dialtone retries it.")

    @classmethod
    def from_counts(cls, counts: ErasureCounts) -> Self:
        """The result of a dry run."""
        return cls._of(counts, dry_run=True, pseudonym=None, complete=True, unconfirmed=0)

    @classmethod
    def from_erasure(cls, erasure: Erasure) -> Self:
        return cls._of(
            erasure.counts,
            dry_run=False,
            pseudonym=erasure.pseudonym,
            complete=erasure.is_complete,
            unconfirmed=erasure.unconfirmed,
        )

    @classmethod
    def _of(
        cls, counts: ErasureCounts, *, dry_run: bool, pseudonym: str | None, complete: bool, unconfirmed: int
    ) -> Self:
        return cls(
            dry_run=dry_run,
            leases=counts.leases,
            credentials=counts.credentials,
            push_registrations=counts.push_registrations,
            audit_events=counts.audit_events,
            pseudonym=pseudonym,
            complete=complete,
            unconfirmed=unconfirmed,
        )
