"""Builds the replica: its id, its timeouts, and its naming with the keys of tags, fingerprints and pseudonyms."""

import hmac
from datetime import timedelta

from app.composition.components import Overrides
from app.config.settings import Settings
from app.vending.replica import Replica
from app.vending.telephony.deadlines import Timing
from app.vending.telephony.naming import Naming

MAX_CALLS_PER_LOGIN = 5
"""Maximum number of Telnyx calls for one login: create, find, find again, extend, mint."""

CLAIM_MARGIN = timedelta(seconds=3)
"""Time allowed for a create in addition to its call to Telnyx: two commits on a busy database."""


def build_replica(settings: Settings, overrides: Overrides) -> Replica:
    timeout = settings.telnyx_call_seconds
    return Replica(
        id=overrides.new_id(),
        naming=Naming(settings.namespace, *tag_keys(settings)),
        timing=Timing(
            request_timeout_seconds=settings.request_timeout_seconds,
            flight_seconds=MAX_CALLS_PER_LOGIN * timeout + CLAIM_MARGIN.total_seconds(),
            claim=timedelta(seconds=timeout) + CLAIM_MARGIN,
            propagation=timedelta(seconds=settings.propagation_seconds),
        ),
    )


def tag_keys(settings: Settings) -> tuple[bytes, bytes | None]:
    """The current and the previous key. By default, the current one is derived from the API key."""
    previous = settings.previous_tag_key
    return _tag_key(settings), None if previous is None else previous.get_secret_value().encode()


def _tag_key(settings: Settings) -> bytes:
    if settings.tag_key is not None:
        return settings.tag_key.get_secret_value().encode()
    api_key = settings.telnyx_api_key.get_secret_value()
    return hmac.digest(api_key.encode(), b"dialtone tag key", "sha256")
