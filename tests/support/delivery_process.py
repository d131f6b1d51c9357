"""A process that delivers events until it is killed: `python -m tests.support.delivery_process DATABASE URL CA`."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.webhooks import WebhookSender
from app.sandbox.account import Clock
from app.vending.events.delivery import EventDeliverer
from app.vending.events.endpoints import ActiveEndpoints
from tests.support.webhooks import Receiver


async def deliver(database: str, url: str, ca_file: str) -> None:
    endpoint = replace(Receiver(url=url).endpoint(), ca_pem=Path(ca_file).read_text())
    clock, active = Clock(), ActiveEndpoints((endpoint,))
    ledger = SqlDeliveries(Database(open_engine(database_url(database))))
    sender = WebhookSender("dialtone/test", "/dialtone/test", clock)
    deliverer = EventDeliverer(ledger, sender.send, active, "killed", clock, lambda: 0.5)
    await deliverer.start()
    await deliverer.finish()


if __name__ == "__main__":
    asyncio.run(deliver(*sys.argv[1:]))
