"""Push credentials. No response has a field for key material."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import PydanticKnownError

from app.api.schemas.fields import Instant, Label, StrictRequest
from app.vending.push.material_errors import MaterialReport
from app.vending.push.models import PushType, RegisteredPush

Alias = Annotated[Label, Field(description="A name that the caller chooses.")]


class IosMaterial(StrictRequest):
    """Apple's VoIP Services certificate with its private key, both in PEM. Line ends do not matter."""

    type: Literal["ios"]
    alias: Alias | None = Field(None, examples=["softphone-ios"])
    certificate: str = Field(
        description="The app's certificate in PEM. Its issuers' certificates are ignored.", repr=False
    )
    private_key: str = Field(description="The private key in PEM, without a passphrase.", repr=False)


def _check_unicode(value: Any) -> Any:
    """Rejects lone surrogates, which JSON can escape and UTF-8 cannot encode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise PydanticKnownError("string_unicode") from None
    return value


class AndroidMaterial(StrictRequest):
    """Google's service account for FCM HTTP v1."""

    type: Literal["android"]
    alias: Alias | None = Field(None, examples=["softphone-android"])
    project_account_json_file: Annotated[Any, AfterValidator(_check_unicode)] = Field(
        description="The content of the key file, as a JSON object.", repr=False
    )


class IosPushCredentialRequest(IosMaterial):
    """An iOS app's push credential."""

    alias: Alias = Field(examples=["softphone-ios"])


class AndroidPushCredentialRequest(AndroidMaterial):
    """An Android app's push credential."""

    alias: Alias = Field(examples=["softphone-android"])


PushMaterial = Annotated[IosMaterial | AndroidMaterial, Field(discriminator="type")]
PushCredentialRequest = Annotated[IosPushCredentialRequest | AndroidPushCredentialRequest, Field(discriminator="type")]

PUSH_CREDENTIAL_EXAMPLE: dict[str, JsonValue] = {
    "id": "5c2f8a1e9b3d4c7f8e6a0b1c2d3e4f5a",
    "type": "ios",
    "alias": "softphone-ios",
    "app_id": "com.example.softphone",
    "fingerprint_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "not_after": "2027-11-23T09:30:00.000Z",
    "created_at": "2026-11-23T09:30:00.000Z",
    "attached": True,
}


class PushCredential(BaseModel):
    """A push credential that the caller registered. No response contains its key material."""

    model_config = ConfigDict(json_schema_extra={"examples": [PUSH_CREDENTIAL_EXAMPLE]})

    id: str
    type: PushType
    alias: str
    app_id: str = Field(description="Bundle ID or Firebase project ID.")
    fingerprint_sha256: str = Field(description="SHA-256 of the certificate, or of the service account's public key.")
    not_after: Instant | None = Field(description="When the certificate expires; null for a service account.")
    created_at: Instant
    attached: bool = Field(description="True if a Telnyx connection uses it. Otherwise it wakes no device.")

    @classmethod
    def from_registered(cls, found: RegisteredPush) -> "PushCredential":
        return cls(
            id=found.registration.id,
            type=found.object.type,
            alias=found.registration.alias,
            app_id=found.object.app_id,
            fingerprint_sha256=found.object.fingerprint_sha256,
            not_after=found.object.not_after,
            created_at=found.registration.created_at,
            attached=found.is_attached,
        )


class PushCredentialList(BaseModel):
    """The caller's push credentials, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [PUSH_CREDENTIAL_EXAMPLE]}]})

    data: list[PushCredential]


class PushFault(BaseModel):
    """One fault of the material, and how to fix it."""

    code: str
    field: str
    message: str


class PushMaterialReport(BaseModel):
    """The result of validating push material. Nothing was stored or sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ok": False,
                    "type": "ios",
                    "app_id": None,
                    "fingerprint_sha256": None,
                    "not_after": None,
                    "days_left": None,
                    "faults": [
                        {
                            "code": "certificate_expired",
                            "field": "certificate",
                            "message": "The certificate has expired. Renew it in Apple's developer account.",
                        }
                    ],
                }
            ]
        }
    )

    ok: bool
    type: PushType
    app_id: str | None
    fingerprint_sha256: str | None
    not_after: Instant | None
    days_left: int | None
    faults: list[PushFault]

    @classmethod
    def from_report(cls, push_type: str, report: MaterialReport, now: datetime) -> "PushMaterialReport":
        material = report.material
        return cls(
            ok=material is not None,
            type=PushType(push_type),
            app_id=material and material.app_id,
            fingerprint_sha256=material and material.fingerprint_sha256,
            not_after=material and material.not_after,
            days_left=report.days_left(now),
            faults=[PushFault(code=fault.code, field=fault.field, message=fault.message) for fault in report.faults],
        )
