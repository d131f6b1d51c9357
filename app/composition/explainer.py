"""Builds the token explainer of the commands, with the issuers' keys, and with the ledger if it exists."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.adapters.identity.diagnosis.explain import TokenExplainer
from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.not_before import SqlNotBefore
from app.composition.issuers import open_verifier
from app.config.settings import Settings
from app.vending.not_before import NotBeforeRegistry


@asynccontextmanager
async def open_explainer(settings: Settings) -> AsyncIterator[TokenExplainer]:
    """An explainer with the service's issuers, keys and not-before entries."""
    async with open_verifier(settings) as verifier, _open_not_before(settings) as entries:
        check = None if entries is None else entries.check
        yield TokenExplainer(verifier.configured_issuers, verifier.verify, check, _now().timestamp())


@asynccontextmanager
async def _open_not_before(settings: Settings) -> AsyncIterator[NotBeforeRegistry | None]:
    """The entries in the ledger. None if the ledger is a file that does not exist, because opening would create it."""
    url = database_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and not _is_file(url.database):
        yield None
        return
    database = Database(open_engine(url))
    try:
        yield NotBeforeRegistry(SqlNotBefore(database), _now)
    finally:
        await database.close()


def _is_file(path: str | None) -> bool:
    return path is not None and Path(path).is_file()


def _now() -> datetime:
    return datetime.now(UTC)
