"""Builds the components of the ledger."""

from app.adapters.ledger.audit import SqlAudit
from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.erasure import SqlErasure
from app.adapters.ledger.grants import SqlGrants
from app.adapters.ledger.lease_search import SqlLeaseSearch
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.migrate import newest_revision
from app.adapters.ledger.not_before import SqlNotBefore
from app.adapters.ledger.pg_connector import PgConnector
from app.adapters.ledger.pg_login import PgLogin
from app.adapters.ledger.push import SqlPush
from app.adapters.ledger.sweep import SqlSweep
from app.composition.components import LedgerComponents, Overrides, Telemetry
from app.composition.events import build_outbox
from app.config.settings import Settings
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.replica import Replica


def build_ledger(
    settings: Settings, overrides: Overrides, telemetry: Telemetry, replica: Replica, active: ActiveEndpoints
) -> LedgerComponents:
    url = database_url(settings.database_url.get_secret_value())
    connector = None if url.get_backend_name() == "sqlite" else PgConnector(url)
    engine = open_engine(url, connector)
    database = Database(engine, telemetry.tracer)
    revision = newest_revision()
    outbox = build_outbox(settings, overrides, active, is_sqlite=database.is_sqlite)
    return LedgerComponents(
        engine=engine,
        database=database,
        login=PgLogin(url, connector),
        leases=SqlLeases(database, outbox),
        search=SqlLeaseSearch(database, outbox),
        sweep=SqlSweep(database, outbox),
        not_before=SqlNotBefore(database, outbox),
        push=SqlPush(database, outbox),
        audit=SqlAudit(database, replica.naming, outbox),
        erasure=SqlErasure(database, replica.naming),
        grants=SqlGrants(database),
        deliveries=SqlDeliveries(database),
        check=lambda: database.check_ready(revision),
    )
