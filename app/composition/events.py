"""Builds the delivery of events."""

from app import __version__
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.webhooks import WebhookSender
from app.composition.components import EventComponents, LedgerComponents, Overrides
from app.config.settings import Settings
from app.observability.audit_log import AuditLog
from app.vending.events.admin import EventAdmin
from app.vending.events.delivery import EventDeliverer
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.ids import new_ordered_id
from app.vending.replica import Replica


def build_outbox(settings: Settings, overrides: Overrides, active: ActiveEndpoints, *, is_sqlite: bool) -> EventOutbox:
    return EventOutbox(
        active, is_sqlite=is_sqlite, sip_domain=settings.sip_domain, clock=overrides.clock, new_id=new_ordered_id
    )


def build_events(
    settings: Settings,
    overrides: Overrides,
    replica: Replica,
    audit: AuditLog,
    ledger: LedgerComponents,
    active: ActiveEndpoints,
) -> EventComponents:
    # A path without a host, because Dialtone does not know its public name.
    sender = WebhookSender(f"dialtone/{__version__}", f"/dialtone/{settings.namespace}", overrides.clock)
    deliverer = EventDeliverer(ledger.deliveries, sender.send, active, replica.id, overrides.clock, overrides.jitter)
    return EventComponents(active, sender, deliverer, EventAdmin(ledger.deliveries, active, audit, overrides.clock))
