"""Reload: the settings that SIGHUP applies, and their atomic replacement."""

import structlog

from app.composition.components import IdentityComponents, TelnyxComponents
from app.composition.replica import tag_keys
from app.config.issuer_variables import ISSUER_FIELDS
from app.config.settings import Settings, variable_of
from app.vending.replica import Replica

RELOADABLE = frozenset(
    {
        "config",
        "telnyx_api_key",
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

_log = structlog.get_logger("dialtone.reload")


class SettingsReloader:
    """Applies changed settings to the components that can change while the service runs."""

    def __init__(
        self, settings: Settings, replica: Replica, identity: IdentityComponents, telnyx: TelnyxComponents
    ) -> None:
        """`settings` are the settings at startup."""
        self._settings = settings
        self._naming = replica.naming
        self._identity = identity
        self._telnyx = telnyx

    async def reload(self, changed: Settings) -> None:
        """Apply the settings. If it raises SettingsError, no setting was changed."""
        resolved = changed.identity()
        issuers = self._identity.key_sets.build_issuers(resolved)
        # The following lines neither fail nor await, so no request sees a part of the change.
        self._identity.verifier.replace(issuers)
        self._identity.policy.policy = resolved.policy
        self._identity.key_sets.use_sign_in(resolved, self._identity.sign_in)
        self._naming.use_keys(*tag_keys(changed))
        self._telnyx.api.use_key(changed.telnyx_api_key.get_secret_value())
        _log.info(
            "reloaded",
            issuers=len(issuers),
            rules=len(resolved.policy.rules),
            requires_restart=self._requiring_restart(changed),
        )
        self._identity.key_sets.log_plain_http()
        await self._identity.verifier.refresh_all_keys()

    def _requiring_restart(self, changed: Settings) -> list[str]:
        """Environment variables that differ from the start and that a reload does not apply."""
        names = [name for name in Settings.model_fields if name not in RELOADABLE]
        return [variable_of(name) for name in names if getattr(changed, name) != getattr(self._settings, name)]
