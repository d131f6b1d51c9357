"""RFC 9457 problem documents, as OpenAPI describes them."""

from typing import Any

from pydantic import (
    BaseModel,
    Field,
)


class ProblemDocument(BaseModel):
    """An error, RFC 9457. Branch on `code`."""

    type: str = Field(examples=["urn:dialtone:problem:invalid_token"])
    title: str
    status: int
    code: str
    request_id: str = Field(examples=["7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c"])
    retryable: bool
    errors: list[dict[str, Any]] | None = Field(None, description="For `invalid_request`: where, and what about it.")
