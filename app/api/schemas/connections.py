"""Push credentials that a Telnyx connection uses."""

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import Instant, Request
from app.api.schemas.push_credentials import _EXAMPLE, RegistrationId
from app.vending.push.attach import Attachment
from app.vending.push.models import PushObject, PushType


class AttachRequest(Request):
    """Which registered push credentials a connection is to use: null for none, left out for no change."""

    ios: RegistrationId | None = Field(None, description="The `id` of a registration, anybody's.")
    android: RegistrationId | None = Field(None, description="The `id` of a registration, anybody's.")

    def wanted(self) -> dict[PushType, str | None]:
        return {push_type: getattr(self, push_type) for push_type in PushType if push_type in self.model_fields_set}


class AttachedCredential(BaseModel):
    """What a connection uses: Telnyx's id, and what is known of it here."""

    telnyx_id: str
    app_id: str | None = Field(description="Null where it was made beside Dialtone.")
    fingerprint_sha256: str | None
    not_after: Instant | None

    @classmethod
    def of(cls, telnyx_id: str | None, known: PushObject | None) -> "AttachedCredential | None":
        if telnyx_id is None:
            return None
        return cls(
            telnyx_id=telnyx_id,
            app_id=known and known.app_id,
            fingerprint_sha256=known and known.fingerprint_sha256,
            not_after=known and known.not_after,
        )


class AttachmentInfo(BaseModel):
    """One platform of a connection."""

    before: AttachedCredential | None
    now: AttachedCredential | None

    @classmethod
    def of(cls, found: Attachment) -> "AttachmentInfo":
        return cls(
            before=AttachedCredential.of(found.before, found.before_object),
            now=AttachedCredential.of(found.now, found.now_object),
        )


class Attachments(BaseModel):
    """What a connection used before, and what it uses now."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "connection_id": "1293384261075731499",
                "ios": {
                    "before": None,
                    "now": {
                        "telnyx_id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
                        "app_id": _EXAMPLE["app_id"],
                        "fingerprint_sha256": _EXAMPLE["fingerprint_sha256"],
                        "not_after": _EXAMPLE["not_after"],
                    },
                },
                "android": {"before": None, "now": None},
            }
        }
    )

    connection_id: str
    ios: AttachmentInfo
    android: AttachmentInfo

    @classmethod
    def of(cls, connection_id: str, found: list[Attachment]) -> "Attachments":
        by_type = {item.push_type: AttachmentInfo.of(item) for item in found}
        return cls(connection_id=connection_id, ios=by_type[PushType.IOS], android=by_type[PushType.ANDROID])
