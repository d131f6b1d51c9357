"""Push credentials for operators: all of them, and those that a Telnyx connection uses."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.schemas.fields import Instant, ResourceId, StrictRequest
from app.api.schemas.push_credentials import PUSH_CREDENTIAL_EXAMPLE
from app.vending.push.attach import Attachment
from app.vending.push.models import PushObject, PushObjectUse, PushState, PushType

PUSH_OBJECT_EXAMPLE: dict[str, JsonValue] = {
    "id": PUSH_CREDENTIAL_EXAMPLE["id"],
    "type": "ios",
    "app_id": PUSH_CREDENTIAL_EXAMPLE["app_id"],
    "state": "active",
    "fingerprint_sha256": PUSH_CREDENTIAL_EXAMPLE["fingerprint_sha256"],
    "not_after": PUSH_CREDENTIAL_EXAMPLE["not_after"],
    "users": 12,
    "attached": True,
    "telnyx_credential_id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
}


class AttachRequest(StrictRequest):
    """The push credentials that a connection is to use. Null detaches; an omitted platform stays unchanged."""

    ios: ResourceId | None = Field(None, description="The `id` of a push credential of any user.")
    android: ResourceId | None = Field(None, description="The `id` of a push credential of any user.")

    def wanted(self) -> dict[PushType, str | None]:
        return {push_type: getattr(self, push_type) for push_type in PushType if push_type in self.model_fields_set}


class AttachedCredential(BaseModel):
    """A push credential that a connection uses. Only `telnyx_id` is set if Dialtone did not create it."""

    telnyx_id: str
    app_id: str | None = Field(description="Bundle ID or Firebase project ID. Null if Dialtone did not create it.")
    fingerprint_sha256: str | None
    not_after: Instant | None

    @classmethod
    def from_push_object(cls, telnyx_id: str | None, known: PushObject | None) -> "AttachedCredential | None":
        if telnyx_id is None:
            return None
        return cls(
            telnyx_id=telnyx_id,
            app_id=known and known.app_id,
            fingerprint_sha256=known and known.fingerprint_sha256,
            not_after=known and known.not_after,
        )


class AttachmentInfo(BaseModel):
    """The push credential of one platform, before the request and now."""

    before: AttachedCredential | None
    now: AttachedCredential | None

    @classmethod
    def from_attachment(cls, found: Attachment) -> "AttachmentInfo":
        return cls(
            before=AttachedCredential.from_push_object(found.before, found.before_object),
            now=AttachedCredential.from_push_object(found.now, found.now_object),
        )


class Attachments(BaseModel):
    """The push credentials of a connection, before the request and now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": "1293384261075731499",
                    "ios": {
                        "before": None,
                        "now": {
                            "telnyx_id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
                            "app_id": PUSH_CREDENTIAL_EXAMPLE["app_id"],
                            "fingerprint_sha256": PUSH_CREDENTIAL_EXAMPLE["fingerprint_sha256"],
                            "not_after": PUSH_CREDENTIAL_EXAMPLE["not_after"],
                        },
                    },
                    "android": {"before": None, "now": None},
                }
            ]
        }
    )

    connection_id: str
    ios: AttachmentInfo
    android: AttachmentInfo

    @classmethod
    def from_attachments(cls, connection_id: str, found: list[Attachment]) -> "Attachments":
        by_type = {item.push_type: AttachmentInfo.from_attachment(item) for item in found}
        return cls(connection_id=connection_id, ios=by_type[PushType.IOS], android=by_type[PushType.ANDROID])


class PushObjectInfo(BaseModel):
    """A push credential at Telnyx. It serves every user that registered its material."""

    model_config = ConfigDict(json_schema_extra={"examples": [PUSH_OBJECT_EXAMPLE]})

    id: str | None = Field(description="One of its registrations, to attach it. Null if there is none.")
    type: PushType
    app_id: str = Field(description="Bundle ID or Firebase project ID.")
    state: PushState
    fingerprint_sha256: str
    not_after: Instant | None = Field(description="When the certificate expires; null for a service account.")
    users: int = Field(description="The number of registrations.")
    attached: bool = Field(description="True if a Telnyx connection uses it. Otherwise it wakes no device.")
    telnyx_credential_id: str | None

    @classmethod
    def from_use(cls, use: PushObjectUse) -> "PushObjectInfo":
        return cls(
            id=use.registration_id,
            type=use.object.type,
            app_id=use.object.app_id,
            state=use.object.state,
            fingerprint_sha256=use.object.fingerprint_sha256,
            not_after=use.object.not_after,
            users=use.registrations,
            attached=use.is_attached,
            telnyx_credential_id=use.object.credential_id,
        )


class PushObjectList(BaseModel):
    """The push credentials at Telnyx, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [PUSH_OBJECT_EXAMPLE]}]})

    data: list[PushObjectInfo]
