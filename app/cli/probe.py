"""`dialtone doctor --probe`: measures at Telnyx how soon a credential can log in, and how soon presence shows it."""

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from app.adapters.telnyx.registrations import TelnyxRegistrations
from app.adapters.telnyx.signalling import SignallingFailed, open_signalling, signalling_url
from app.cli.check_result import CheckResult, CheckVerdict
from app.cli.output import note
from app.composition.components import Components
from app.config.settings import Settings
from app.vending.errors import DialtoneError, TelnyxError, TelnyxNotFound
from app.vending.ids import new_id

ABOUT = "probe"
LIFETIME = timedelta(minutes=10)
"""Lifetime of the credential, in case it cannot be deleted."""

POLL_SECONDS = 0.5
"""Interval between two attempts. The measurements are accurate to this."""

LOGIN_SECONDS = 30.0
"""Time after the creation in which a login is attempted."""

PRESENCE_SECONDS = 15.0
"""Time in which the registration status should change."""


@dataclass(slots=True)
class Probe:
    """One probe on the default connection. `run` deletes the credential in every case, also after Ctrl-C."""

    where: Settings
    components: Components
    name: str = ""
    may_exist: bool = False
    """Whether Telnyx may have created the credential."""
    credential_id: str | None = None
    results: list[CheckResult] = field(default_factory=list)

    async def run(self) -> list[CheckResult]:
        """The measurements. Failures of Telnyx are results too."""
        note("Probe: creates a credential at Telnyx, logs in with it, and deletes it. This takes up to a minute.")
        self.name = self.components.replica.naming.credential_name(new_id())
        try:
            await self._measure()
        except TelnyxError as error:
            self.results.append(
                CheckResult(
                    ABOUT, CheckVerdict.FAILED, f"stopped, because of Telnyx: {error}", "run `dialtone doctor` again"
                )
            )
        finally:
            await self._clean_up()
        return self.results

    async def _measure(self) -> None:
        telnyx = self.components.telnyx
        began = time.monotonic()
        self.may_exist = True
        try:
            credential = await telnyx.credentials.create(
                connection_id=self.components.identity.policy.policy.default.connection_id,
                name=self.name,
                expires_at=self.components.clock() + LIFETIME,
            )
        except TelnyxError as error:
            self.may_exist = error.may_have_happened
            raise
        created = time.monotonic()
        self.credential_id = credential.id
        self.results.append(
            CheckResult(ABOUT, CheckVerdict.OK, f"Telnyx created a credential in {created - began:.2f} s")
        )
        try:
            await self._measure_login(credential.id, credential.sip_username, created)
        except SignallingFailed as error:
            fix = "let this machine connect to the signalling server, which only this probe needs"
            self.results.append(
                CheckResult(ABOUT, CheckVerdict.WARNING, f"a login could not be measured: {error}", fix)
            )
            await self._measure_presence(credential.sip_username, time.monotonic(), is_online=False)

    async def _measure_login(self, credential_id: str, sip_username: str, created: float) -> None:
        if self.where.is_sandboxed and self.where.rtc_host is None:
            raise SignallingFailed("DIALTONE_RTC_HOST is not set to the sandbox")
        token = await self.components.telnyx.credentials.mint(credential_id)
        url = signalling_url(self.where.rtc_host, self.where.rtc_region)
        attempts = 0
        while True:
            async with open_signalling(url, self.where.proxy_url) as connection:
                attempts += 1
                started = time.monotonic()
                if await connection.login(token.secret):
                    self._add_propagation(started - created, attempts)
                    await self._measure_presence(sip_username, time.monotonic(), is_online=True)
                    break
            if time.monotonic() - created > LOGIN_SECONDS:
                raise SignallingFailed(f"Telnyx rejected {attempts} logins in {LOGIN_SECONDS:.0f} s")
            await asyncio.sleep(POLL_SECONDS)
        await self._measure_presence(sip_username, time.monotonic(), is_online=False)

    def _add_propagation(self, seconds: float, attempts: int) -> None:
        configured = self.where.propagation_seconds
        seen = f"a new credential could log in {seconds:.1f} s after its creation, at attempt {attempts}"
        if seconds > configured:
            fix = f"raise DIALTONE_PROPAGATION_SECONDS from {configured:g} to {math.ceil(seconds)} or more"
            self.results.append(CheckResult(ABOUT, CheckVerdict.WARNING, seen, fix))
        else:
            self.results.append(
                CheckResult(ABOUT, CheckVerdict.OK, f"{seen}; DIALTONE_PROPAGATION_SECONDS is {configured:g}")
            )

    async def _measure_presence(self, sip_username: str, since: float, *, is_online: bool) -> None:
        """How long Telnyx's registration status takes to become `is_online`."""
        registrations = TelnyxRegistrations(self.components.telnyx.api)
        state = "online" if is_online else "offline"
        last: bool | None = None
        while time.monotonic() - since < PRESENCE_SECONDS:
            with suppress(TelnyxError):
                last = await registrations.is_registered(sip_username)
                if last is is_online:
                    self.results.append(
                        CheckResult(
                            ABOUT, CheckVerdict.OK, f"presence was {state} after {time.monotonic() - since:.1f} s"
                        )
                    )
                    return
            await asyncio.sleep(POLL_SECONDS)
        shown = "unknown" if last is None else "offline" if is_online else "online"
        fix = "dial devices without regard to `online`, whose delay Telnyx does not document"
        self.results.append(
            CheckResult(
                ABOUT,
                CheckVerdict.WARNING,
                f"presence was still {shown} after {PRESENCE_SECONDS:.0f} s, not {state}",
                fix,
            )
        )

    async def _clean_up(self) -> None:
        if not self.may_exist:
            return
        credentials = self.components.telnyx.credentials
        began = time.monotonic()
        try:
            ids = [self.credential_id] if self.credential_id else []
            if not ids:  # the create may have happened although its response was lost
                ids = [found.id async for found in credentials.by_name(self.name) if found.name == self.name]
            for credential_id in ids:
                with suppress(TelnyxNotFound):
                    await credentials.delete(credential_id)
        except DialtoneError as error:
            expiry = f"the credential {self.name} expires after {LIFETIME.total_seconds() / 60:.0f} minutes"
            fix = f"delete it with `dialtone sweep` after an hour; not needed if you can wait, because {expiry}"
            self.results.append(
                CheckResult(ABOUT, CheckVerdict.FAILED, f"the credential could not be deleted: {error}", fix)
            )
            note(f"Probe: {self.results[-1].seen}; {fix}.")
            return
        if ids:
            self.results.append(
                CheckResult(
                    ABOUT, CheckVerdict.OK, f"Telnyx deleted the credential in {time.monotonic() - began:.2f} s"
                )
            )
        else:  # Telnyx may show it later
            note(f"Probe: no credential {self.name} was found. If Telnyx created it, it expires after 10 minutes.")
