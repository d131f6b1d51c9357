"""Lease transitions."""

from app.vending.telephony.lease import LIVE, LeaseState
from tests.support.leases import LEASE, NOW


def test_every_transition_increments_the_version() -> None:
    steps = [
        LEASE.mark_lost(NOW),
        LEASE.start_revoking(NOW),
        LEASE.mark_expired(NOW),
        LEASE.extend(NOW, NOW),
        LEASE.mark_failed(NOW),
    ]

    assert {step.version for step in steps} == {LEASE.version + 1}
    assert not {step.state for step in steps if step.state is not LeaseState.ACTIVE} & set(LIVE)


def test_deleted_lease_is_revoked_after_a_request_and_deleted_after_expiry() -> None:
    assert LEASE.start_revoking(NOW).mark_deleted(NOW).state is LeaseState.REVOKED
    assert LEASE.mark_expired(NOW).mark_deleted(NOW).state is LeaseState.DELETED
