"""Lease transitions."""

from app.vending.telephony.lease import LIVE, State
from tests.support.leases import LEASE, NOW


def test_every_transition_increments_the_version() -> None:
    steps = [LEASE.lost(NOW), LEASE.revoking(NOW), LEASE.expired(NOW), LEASE.extended(NOW, NOW), LEASE.failed(NOW)]

    assert {step.version for step in steps} == {LEASE.version + 1}
    assert not {step.state for step in steps if step.state is not State.ACTIVE} & set(LIVE)


def test_deleted_lease_is_revoked_after_a_request_and_deleted_after_expiry() -> None:
    assert LEASE.revoking(NOW).gone(NOW).state is State.REVOKED
    assert LEASE.expired(NOW).gone(NOW).state is State.DELETED
