"""Issuers' signing keys."""

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import IssuerName, Request


class KeySetInfo(BaseModel):
    """One issuer's keys."""

    model_config = ConfigDict(from_attributes=True)

    issuer: str
    keys: int = Field(description="Usable ones.")
    age_seconds: float | None = Field(description="Since they were last confirmed; null where they are fixed.")
    fetches: int
    failures: int


class KeySets(BaseModel):
    """The issuers' keys, as one replica has them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {"issuer": "https://id.example.com", "keys": 2, "age_seconds": 41.5, "fetches": 12, "failures": 0}
                ]
            }
        }
    )

    data: list[KeySetInfo]


class KeyRefreshRequest(Request):
    """Which keys to fetch anew."""

    issuer: IssuerName | None = Field(None, description="Default: every issuer.")


class KeyRefreshes(BaseModel):
    """By issuer, whether its keys could be fetched by this replica. Where not, the keys at hand stay."""

    model_config = ConfigDict(json_schema_extra={"example": {"refreshed": {"https://id.example.com": True}}})

    refreshed: dict[str, bool]
