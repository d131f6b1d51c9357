"""A registration of push material is recorded, also if the ledger fails after it."""

from typing import Any, cast

import pytest

from app.vending.audit import Decision
from app.vending.errors import LedgerUnavailable
from app.vending.push.material_errors import MaterialReport
from app.vending.push.models import PushMaterial, PushObject, PushRegistration, PushState, PushType
from app.vending.push.register import PushRegistrar, UploadEstimate
from app.vending.push.upload import Uploaded
from tests.support.leases import NOW
from tests.support.tokens import principal

MATERIAL = PushMaterial(PushType.ANDROID, "app", b"identity", "AB:CD", None, {})
OBJECT = PushObject(
    fingerprint="f" * 64,
    type=PushType.ANDROID,
    telnyx_alias="dialtone-push-1",
    state=PushState.ACTIVE,
    version=2,
    app_id="app",
    fingerprint_sha256="AB:CD",
    not_after=None,
    created_at=NOW,
    updated_at=NOW,
)


class FailingLedger:
    """A ledger that stores a registration, and then is unavailable."""

    async def registered_as(self, *_: Any) -> None:
        return None

    async def register(self, _: PushRegistration, __: int) -> None: ...

    async def registered(self, *_: Any) -> None:
        raise LedgerUnavailable


class Surroundings:
    """The policy, the uploads and the audit of a registrar."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def authorize_push(self, _: Any) -> None: ...

    async def check_known(self, _: Any) -> None: ...

    async def ensure(self, _: PushMaterial) -> Uploaded:
        return Uploaded(OBJECT, is_new=True)

    async def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


async def test_registration_is_recorded_although_it_cannot_be_read_again() -> None:
    around = cast("Any", Surroundings())
    registrar = PushRegistrar(
        policy=around,
        check_known=around.check_known,
        ledger=cast("Any", FailingLedger()),
        uploads=around,
        attacher=cast("Any", None),
        audit=around,
        estimate=UploadEstimate(lambda: 0.0),
        clock=lambda: NOW,
        new_id=lambda: "1" * 32,
        wake_sweeper=lambda: None,
    )

    with pytest.raises(LedgerUnavailable):
        await registrar.register(principal("alice"), "work", MaterialReport(MATERIAL))

    assert [(decision.reason, decision.details["registration_id"]) for decision in around.decisions] == [
        ("registered", "1" * 32)
    ]
