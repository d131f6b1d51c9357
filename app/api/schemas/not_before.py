"""Not-before: rejecting tokens that were issued before a given time."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.fields import Instant, IssuerName, Moment, StrictRequest, Subject
from app.vending.not_before import NotBefore, NotBeforeTarget, Reach


class NotBeforeRequest(StrictRequest):
    """The tokens to reject: those of a user, of a session, or, with neither, all of the issuer."""

    issuer: IssuerName = Field(description="The `iss` of the tokens.", examples=["https://id.example.com"])
    subject: Subject | None = Field(None, description="The user.")
    session: Subject | None = Field(None, description="The session (`sid`), instead of a user.")
    not_before: Moment | None = Field(None, description="Tokens issued before this time are rejected. Default: now.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.subject is not None and self.session is not None:
            raise ValueError("subject and session exclude each other.")
        return self

    def target(self) -> NotBeforeTarget:
        if self.session is not None:
            return NotBeforeTarget(self.issuer, Reach.SESSION, self.session)
        return (
            NotBeforeTarget(self.issuer, Reach.USER, self.subject)
            if self.subject is not None
            else NotBeforeTarget(self.issuer)
        )


class NotBeforeInfo(BaseModel):
    """The not-before that was set."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "issuer": "https://id.example.com",
                    "reach": "user",
                    "name": "alice",
                    "not_before": "2026-11-23T09:30:00.000Z",
                }
            ]
        }
    )

    issuer: str
    reach: Literal["issuer", "user", "session"]
    name: str = Field(description="The subject or the session; empty for a whole issuer.")
    not_before: Instant

    @classmethod
    def from_mark(cls, mark: NotBefore) -> Self:
        target = mark.target
        return cls.model_validate(
            {"issuer": target.issuer, "reach": target.reach, "name": target.name, "not_before": mark.not_before}
        )
