"""Webhooks: sends events to endpoints, signed by the Standard Webhooks scheme, and only to allowed addresses."""

import base64
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from app.adapters.addresses import AddressForbidden, is_public
from app.adapters.http_client import FailureReason, HttpClient, RequestFailed
from app.adapters.name_lookups import IsolatedResolver
from app.vending.events.delivery import SEND_DEADLINE, SendFailure
from app.vending.events.endpoints import Network, WebhookEndpoint
from app.vending.events.models import Delivery, cloud_event

SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's prefix of secrets
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""The sizes of secrets that Standard Webhooks allows."""

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that may be connected to.

    The connection is made to the address that was checked, so a name server cannot give another one afterwards.
    """

    def __init__(self, resolver: AbstractResolver, allowed_networks: Sequence[Network]) -> None:
        self._allowed_networks = allowed_networks
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises AddressForbidden if one of the addresses is forbidden, even if others are allowed."""
        found = await self._resolver.resolve(host, port, family)
        if not all(is_allowed_address(entry["host"], self._allowed_networks) for entry in found):
            raise AddressForbidden
        return found

    async def close(self) -> None:
        await self._resolver.close()


class WebhookSender:
    """Sends events. Each endpoint has a connection pool of its own."""

    def __init__(
        self,
        user_agent: str,
        source: str,
        clock: Callable[[], datetime],
        open_resolver: Callable[[], AbstractResolver] = IsolatedResolver,
    ) -> None:
        """`source` is the `source` of all events."""
        self._user_agent = user_agent
        self._source = source
        self._clock = clock
        self._open_resolver = open_resolver
        self._clients: dict[str, tuple[WebhookEndpoint, HttpClient]] = {}

    async def send(self, endpoint: WebhookEndpoint, event: Delivery) -> SendFailure | None:
        """Returns None if the endpoint accepted the event with a 2xx status."""
        body = json.dumps(cloud_event(event, self._source), separators=(",", ":"))
        now = self._clock()
        headers = {
            "Content-Type": CONTENT_TYPE,
            "webhook-id": event.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(Webhook(key).sign(event.event_id, now, body) for key in endpoint.secrets),
        }
        return await self._post(endpoint, "POST", headers, body.encode())

    async def check(self, endpoint: WebhookEndpoint) -> SendFailure | None:
        """Send a request without an event. Returns None for any response that is no redirect."""
        failure = await self._post(endpoint, "HEAD", {}, b"")
        is_other_status = failure is not None and re.fullmatch("status_[^3]..", failure.reason)
        return None if is_other_status else failure

    async def close(self) -> None:
        for _, client in self._clients.values():
            await client.__aexit__(None, None, None)

    async def _post(
        self, endpoint: WebhookEndpoint, method: str, headers: dict[str, str], body: bytes
    ) -> SendFailure | None:
        host = urlsplit(endpoint.url).hostname or ""
        if is_address(host) and not is_allowed_address(
            host, endpoint.allowed_networks
        ):  # the resolver is not asked about addresses
            return _failure(FailureReason.FORBIDDEN_ADDRESS)
        client = await self._client(endpoint)
        try:
            response = await client.send(
                method,
                endpoint.url,
                deadline_seconds=SEND_DEADLINE.total_seconds(),
                max_bytes=0,
                headers=client.headers(headers),
                content=body,
                reads_body=False,
            )
        except RequestFailed as failure:
            return _failure(failure.reason)
        if 200 <= response.status < 300:
            return None
        return SendFailure(
            f"status_{response.status}", is_unavailable=response.status >= 500 or response.status in (408, 429)
        )

    async def _client(self, endpoint: WebhookEndpoint) -> HttpClient:
        """The endpoint's client. A reload may have changed its addresses or its CA certificates."""
        known = self._clients.get(endpoint.name)
        if known is not None and _connection_of(known[0]) == _connection_of(endpoint):
            return known[1]
        resolver = CheckedResolver(self._open_resolver(), endpoint.allowed_networks)
        client = HttpClient(self._user_agent, ca_pem=endpoint.ca_pem, resolver=resolver)
        self._clients[endpoint.name] = endpoint, client
        if known is not None:
            await known[1].__aexit__(None, None, None)
        return client


def _failure(reason: FailureReason) -> SendFailure:
    return SendFailure(reason.name.lower(), is_unavailable=True)


def _connection_of(endpoint: WebhookEndpoint) -> tuple[object, ...]:
    return endpoint.url, endpoint.ca_pem, endpoint.allowed_networks


def is_address(host: str) -> bool:
    """Whether the host is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_allowed_address(address: str, allowed_networks: Sequence[Network]) -> bool:
    """Whether the address is public, or in one of the allowed networks."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return is_public(found) or any(found in network for network in allowed_networks)


def signing_secret(text: str) -> bytes:
    """The bytes of a secret such as `whsec_...`. Raises ValueError without the value."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64, as `openssl rand -base64 32` prints them")
    return secret
