"""The user and password with which replicas log in to PostgreSQL. They can change while the service runs."""

from sqlalchemy.engine import URL

from app.adapters.ledger.database import DATABASE_ERRORS
from app.adapters.ledger.pg_connector import PgConnector
from app.vending.errors import LedgerUnavailable


class PgLogin:
    """Changes the login of a connector after a trial."""

    def __init__(self, url: URL, connector: PgConnector | None) -> None:
        """`connector` is None on SQLite, which has no login."""
        self._url = url
        self._connector = connector

    def is_only_change(self, url: URL) -> bool:
        """Whether the address differs in nothing but the user and password."""
        if self._connector is None or url.get_backend_name() == "sqlite":
            return url == self._url
        return PgConnector(url).change_login(self._url)

    async def check(self, url: URL) -> None:
        """Raises LedgerUnavailable if the server does not accept the login."""
        if self._connector is None or url == self._url:
            return
        try:
            await (await PgConnector(url).open()).close()
        except DATABASE_ERRORS as error:
            raise LedgerUnavailable from error

    def use(self, url: URL) -> None:
        """Use the login for new connections, and replace the present ones before their next use."""
        if self._connector is not None and self._connector.change_login(url):
            self._url = url
