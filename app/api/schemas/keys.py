"""Issuers' signing keys."""

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import IssuerName, StrictRequest


class SkippedKeyInfo(BaseModel):
    """A key of the issuer's key set that is not used."""

    model_config = ConfigDict(from_attributes=True)

    kid: str | None = Field(description="The `kid` in ASCII, shortened to 64 characters. Null if it is missing.")
    reason: str
    is_fault: bool = Field(description="False if the key is for another purpose, such as encryption.")


class KeySetInfo(BaseModel):
    """The keys of one issuer."""

    model_config = ConfigDict(from_attributes=True)

    issuer: str
    keys: int = Field(description="Number of usable keys.")
    age_seconds: float | None = Field(
        description="Seconds since the last successful fetch; null for keys from the configuration."
    )
    fetches: int
    failures: int
    skipped: list[SkippedKeyInfo] = Field(description="Keys of the issuer's key set that are not used.")
    last_failure: str | None = Field(description="Why the last fetch failed; null if it succeeded.")


class KeySetList(BaseModel):
    """The issuers' keys in the memory of one replica."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "data": [
                        {
                            "issuer": "https://id.example.com",
                            "keys": 2,
                            "age_seconds": 41.5,
                            "fetches": 12,
                            "failures": 0,
                            "skipped": [
                                {
                                    "kid": "2019",
                                    "reason": "it is not for signatures, by its use or key_ops",
                                    "is_fault": False,
                                }
                            ],
                            "last_failure": None,
                        }
                    ]
                }
            ]
        }
    )

    data: list[KeySetInfo]


class KeyRefreshRequest(StrictRequest):
    """The issuer whose keys to fetch."""

    issuer: IssuerName | None = Field(None, description="Default: every issuer.")


class KeyRefreshResult(BaseModel):
    """Whether this replica fetched the keys of each issuer. If a fetch failed, the cached keys stay in use."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refreshed": {"https://id.example.com": True}}]})

    refreshed: dict[str, bool]
