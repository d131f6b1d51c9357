"""The sign-in of operators: the client of the configuration, and the endpoints from the discovery document."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from app.adapters.addresses import is_safe_url
from app.adapters.http_client import HttpClient
from app.adapters.identity import key_faults
from app.adapters.identity.key_faults import FetchFailed
from app.adapters.identity.key_sets import (
    COLD_COOLDOWN_SECONDS,
    FETCH_SECONDS,
    MAX_DOCUMENT_BYTES,
    REFRESH_SECONDS,
    KeySetLocation,
    get_document,
)
from app.vending.errors import IdentityUnavailable
from app.vending.operators.sign_in import SignIn, SignInClient

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~%/:@+=-]*)?")
"""Endpoints without characters that have a meaning in a Content-Security-Policy header, such as `;` and `*`."""

_log = structlog.get_logger("dialtone.identity")


class OperatorSignIn:
    """Fetches the endpoints when they are needed, and keeps them for REFRESH_SECONDS. At most one fetch at a time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.client: SignInClient | None = None
        self._monotonic = monotonic
        self._location: KeySetLocation | None = None
        self._http: HttpClient | None = None
        self._found: SignIn | None = None
        self._fetched_at = self._failed_at = -float("inf")
        self._fetching: asyncio.Task[None] | None = None

    def use(self, client: SignInClient | None, location: KeySetLocation | None, http: HttpClient | None) -> None:
        """Replace the configuration. All are None if no issuer has a client for operators."""
        if (client, location, http) != (self.client, self._location, self._http):
            self._found, self._fetching = None, None
            self._fetched_at = self._failed_at = -float("inf")
        self.client, self._location, self._http = client, location, http

    async def current(self) -> SignIn | None:
        """The last endpoints stay in use while the discovery document is unavailable. Raises IdentityUnavailable."""
        if self.client is None or self._location is None or self._http is None:
            return None
        is_old = self._monotonic() - self._fetched_at > REFRESH_SECONDS
        if is_old and self._monotonic() - self._failed_at > COLD_COOLDOWN_SECONDS:
            if self._fetching is None or self._fetching.done():
                self._fetching = asyncio.create_task(self._fetch(self.client, self._location, self._http))
            await asyncio.shield(self._fetching)
        if self._found is None:
            raise IdentityUnavailable(retry_after_seconds=COLD_COOLDOWN_SECONDS)
        return self._found

    async def _fetch(self, client: SignInClient, location: KeySetLocation, http: HttpClient) -> None:
        until = asyncio.get_running_loop().time() + FETCH_SECONDS
        what = key_faults.DISCOVERY_DOCUMENT
        try:
            answer = await get_document(http, location, location.discovery, what, until, MAX_DOCUMENT_BYTES)
            try:
                document = json.loads(answer.body)
            except (ValueError, RecursionError):
                document = None
            if not isinstance(document, dict):
                raise key_faults.body_fault(answer.body, location.discovery, what, is_json=document is not None)
            found = _sign_in(document, client, allows_http=location.allows_http)
        except FetchFailed as error:
            _log.warning("sign_in_unavailable", issuer=client.issuer, cause=str(error), fix=error.fix)
            if client is self.client:
                self._failed_at = self._monotonic()
            return
        if client is self.client:  # a reload may have replaced it meanwhile
            self._found, self._fetched_at = found, self._monotonic()


def _sign_in(document: Mapping[str, Any], client: SignInClient, *, allows_http: bool) -> SignIn:
    """Raises FetchFailed."""
    key_faults.check_issuer(document, client.issuer)
    end_session = document.get("end_session_endpoint")
    return SignIn(
        client,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", allows_http=allows_http),
        token_endpoint=_endpoint(document, "token_endpoint", allows_http=allows_http),
        end_session_endpoint=(
            None if end_session is None else _endpoint(document, "end_session_endpoint", allows_http=allows_http)
        ),
    )


def _endpoint(document: Mapping[str, Any], name: str, *, allows_http: bool) -> str:
    found = document.get(name)
    if isinstance(found, str) and is_safe_url(found, allows_http=allows_http) and _ENDPOINT.fullmatch(found):
        return found
    reason = "has no" if found is None else "has an unusable"
    raise FetchFailed(f"the discovery document {reason} {name}", "correct the provider's settings, or paste a token")
