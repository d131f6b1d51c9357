"""Reload: the settings that SIGHUP applies, and their atomic replacement."""

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

import structlog
from pydantic import SecretStr
from sqlalchemy.engine import URL

from app.adapters.http_client import HttpClients
from app.adapters.ledger.engines import database_url
from app.adapters.ledger.failure_reasons import reason_of
from app.adapters.login_cache.shared import SharedLoginCache
from app.adapters.shared_counts import SharedCounts
from app.composition.components import IdentityComponents, LedgerComponents, TelnyxComponents
from app.composition.replica import tag_keys
from app.config.issuer_variables import ISSUER_FIELDS
from app.config.settings import Settings, SettingsError, variable_of
from app.vending.errors import LedgerUnavailable, TelnyxError, TelnyxNotFound, TelnyxRejected
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.policy import Policy
from app.vending.replica import Replica
from app.vending.upkeep.outbound_guard import FailedRead

RELOADABLE = frozenset(
    {
        "config",
        "telnyx_api_key",
        "grant_key",
        "other_grant_key",
        "tag_key",
        "previous_tag_key",
        "telnyx_connection_id",
        "max_devices",
        "at_device_limit",
        "sip_password",
    }
    | {"credential_ttl_seconds", "mobile_credential_ttl_seconds"}
    | {*ISSUER_FIELDS}
    | {name for name in Settings.model_fields if name.endswith("_file")}
)
"""Settings that a reload applies. All others require a restart."""

LOGINS = frozenset({"database_url", "redis_url", "login_cache_url", "egress_proxy"})
"""Addresses. A reload applies a change of the user and the password, but not of the rest."""

_log = structlog.get_logger("dialtone.reload")


class SettingsReloader:
    """Applies changed settings to the components that can change while the service runs."""

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        ledger: LedgerComponents,
        identity: IdentityComponents,
        telnyx: TelnyxComponents,
        shared_counts: SharedCounts | None,
        shared_logins: SharedLoginCache | None,
        clients: HttpClients,
        active: ActiveEndpoints,
    ) -> None:
        """`settings` are the settings at startup."""
        self._settings = settings
        self._naming = replica.naming
        self._login = ledger.login
        self._identity = identity
        self._telnyx = telnyx
        self._shared_counts = shared_counts
        self._shared_logins = shared_logins
        self._clients = clients
        self._active = active

    async def reload(self, changed: Settings) -> None:
        """Apply the settings. If it raises SettingsError, no setting was changed."""
        resolved = changed.identity()
        issuers = self._identity.key_sets.build_issuers(resolved)
        requires_restart = self._requiring_restart(changed)
        unread = await self._check_outbound(resolved.policy)
        database = database_url(changed.database_url.get_secret_value())
        if "database_url" not in requires_restart:
            await self._check_login(database)
        # The following lines neither fail nor await, so no request sees a part of the change.
        self._identity.verifier.replace(issuers)
        self._identity.key_sets.forget_others(issuers)
        self._identity.policy.policy = resolved.policy
        self._identity.grant_keys.keys = resolved.grant_keys
        self._identity.key_sets.use_sign_in(resolved, self._identity.sign_in)
        self._active.endpoints = resolved.endpoints
        self._naming.use_keys(*tag_keys(changed))
        self._telnyx.api.use_key(changed.telnyx_api_key.get_secret_value())
        self._telnyx.outbound_guard.forget_rejections()
        self._use_logins(changed, database, requires_restart)
        _log.info(
            "reloaded",
            issuers=len(issuers),
            rules=len(resolved.policy.rules),
            endpoints=len(resolved.endpoints),
            requires_restart=[variable_of(name) for name in requires_restart],
        )
        for connection_id, error in unread.items():
            self._telnyx.outbound_guard.report_failed_read(connection_id, error)
        self._identity.key_sets.log_plain_http()
        await self._identity.verifier.refresh_all_keys()

    async def _check_outbound(self, policy: Policy) -> dict[str, TelnyxError]:
        """The connections with a new requirement that could not be read. Until they are read, new logins are denied.

        Raises SettingsError if a connection does not meet a requirement that the active policy does not have, or if
        Telnyx rejects the connection: the id may be wrong. Other errors do not prevent the reload, which may be the
        fix: for example, it may apply a new API key.
        """
        guard, unread = self._telnyx.outbound_guard, dict[str, TelnyxError]()
        before = self._identity.policy.policy.outbound_requirements()
        for connection_id in policy.connections_to_check(before):
            try:
                unmet = await guard.unmet_rules(policy, connection_id)
            except (TelnyxNotFound, TelnyxRejected) as error:
                raise SettingsError(str(FailedRead.of(policy, connection_id, error))) from None
            except TelnyxError as error:
                unread[connection_id] = error
                continue
            for rule in unmet:
                if (rule.connection_id, rule.requirement) not in before:
                    raise SettingsError(str(rule))
        return unread

    async def _check_login(self, database: URL) -> None:
        try:
            await self._login.check(database)
        except LedgerUnavailable as error:
            reason = reason_of(error) or "the server does not accept a connection"
            raise SettingsError(f"{variable_of('database_url')}: {reason}") from None

    def _use_logins(self, changed: Settings, database: URL, requires_restart: Sequence[str]) -> None:
        """Use the passwords of the database, of Redis and of the egress proxy."""
        if "database_url" not in requires_restart:
            self._login.use(database)
        if self._shared_counts is not None and changed.redis_url is not None and "redis_url" not in requires_restart:
            self._shared_counts.use_login(changed.redis_url.get_secret_value())
        if (
            self._shared_logins is not None
            and changed.login_cache_url is not None
            and "login_cache_url" not in requires_restart
        ):
            self._shared_logins.use_login(changed.login_cache_url.get_secret_value())
        if changed.proxy_url is not None and "egress_proxy" not in requires_restart:
            self._clients.use_proxy(changed.proxy_url)

    def _requiring_restart(self, changed: Settings) -> list[str]:
        """Settings that differ from the start and that a reload does not apply."""
        names = [
            name for name in Settings.model_fields if name not in RELOADABLE and not self._is_new_login(changed, name)
        ]
        return [name for name in names if getattr(changed, name) != getattr(self._settings, name)]

    def _is_new_login(self, changed: Settings, name: str) -> bool:
        """Whether the setting is an address whose user or password may have changed, but nothing else."""
        before, after = getattr(self._settings, name), getattr(changed, name)
        if not isinstance(before, SecretStr) or not isinstance(after, SecretStr) or name not in LOGINS:
            return False
        addresses = before.get_secret_value(), after.get_secret_value()
        if name == "database_url":
            return self._login.is_only_change(database_url(addresses[1]))
        first, second = (urlsplit(address) for address in addresses)
        return first._replace(netloc=_host(first)) == second._replace(netloc=_host(second))


def _host(address: SplitResult) -> str:
    """The host and port, without the user and password."""
    return address.netloc.rpartition("@")[2]
