"""Schemas of RFC 9457 problem documents."""

from pydantic import BaseModel, Field


class ProblemDetail(BaseModel):
    """One fault of a request. Contains no value that the caller sent."""

    loc: list[str | int] = Field(
        description="Path to the field, starting with `body`, `query` or `path`. `[unknown]` replaces a name that is "
        "not a plain identifier."
    )
    type: str = Field(description="A stable code for the fault.")
    message: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 defines it. Branch on `code`."""

    type: str = Field(examples=["urn:dialtone:problem:invalid_token"])
    title: str
    status: int
    code: str
    request_id: str = Field(examples=["7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c"])
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[ProblemDetail] | None = Field(None, description="For status 422: the faults of the request.")
