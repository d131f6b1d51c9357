"""Webhooks are signed, and sent only to https hosts at allowed addresses."""

import asyncio
import socket
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from app.adapters.addresses import is_public
from app.adapters.name_lookups import IsolatedResolver
from app.adapters.webhooks import WebhookSender, signing_secret
from app.sandbox.account import Clock
from app.vending.events.endpoints import WebhookEndpoint
from tests.support.certificates import certificate_authority
from tests.support.raw_server import raw_server
from tests.support.webhooks import EVENT, FORMER_SECRET, SECRET, Receiver, encoded, webhook_receiver


class Resolver(AbstractResolver):
    """Gives one address after the other, the last one forever."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)
        self.questions = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.questions += 1
        address = self._addresses.pop(0) if len(self._addresses) > 1 else self._addresses[0]
        flags = socket.AI_NUMERICHOST
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)]

    async def close(self) -> None: ...


async def send(endpoint: WebhookEndpoint, resolver: Resolver | None = None) -> str | None:
    """The reason of the failure."""
    more = () if resolver is None else (lambda: resolver,)
    sender = WebhookSender("dialtone/test", "/dialtone/test", Clock(), *more)
    try:
        failure = await sender.send(endpoint, EVENT)
    finally:
        await sender.close()
    return None if failure is None else failure.reason


async def test_request_is_signed_as_the_specification_says() -> None:
    async with webhook_receiver() as receiver:
        assert await send(receiver.endpoint()) is None

    (received,) = receiver.received
    assert received.is_signed_with(SECRET)
    assert not received.is_signed_with(FORMER_SECRET)
    assert received.id == EVENT.event_id


async def test_library_of_the_receiver_accepts_the_signature() -> None:
    async with webhook_receiver() as receiver:
        await send(receiver.endpoint())

    (received,) = receiver.received
    assert Webhook(encoded(SECRET)).verify(received.body, received.headers)["id"] == EVENT.event_id


async def test_both_secrets_sign_during_a_rotation() -> None:
    async with webhook_receiver() as receiver:
        await send(receiver.endpoint(secrets=(SECRET, FORMER_SECRET)))

    assert all(receiver.received[0].is_signed_with(secret) for secret in (SECRET, FORMER_SECRET))


async def test_body_is_a_structured_cloud_event() -> None:
    async with webhook_receiver() as receiver:
        await send(receiver.endpoint())

    (received,) = receiver.received
    assert received.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = received.event
    assert {"specversion", "id", "source", "type"} <= event.keys()
    assert (event["specversion"], event["time"], event["source"]) == (
        "1.0",
        "2026-11-23T12:00:00.123Z",
        "/dialtone/test",
    )
    assert event["data"]["subject"] == "alicé"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_failures_and_not_followed(status: int) -> None:
    async with webhook_receiver() as target, webhook_receiver() as receiver:
        receiver.status, receiver.headers = status, {"Location": target.url}

        assert await send(receiver.endpoint()) == f"status_{status}"

        assert not target.received


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_private_address_is_rejected_unless_it_is_listed(host: str) -> None:
    async with webhook_receiver(host) as receiver:
        endpoint = receiver.endpoint()

        assert await send(replace(endpoint, allowed_networks=())) == "forbidden_address"
        assert await send(replace(endpoint, allowed_networks=(ip_network("10.0.0.0/8"),))) == "forbidden_address"
        assert await send(endpoint) is None

    assert len(receiver.received) == 1


async def test_name_that_changes_its_address_after_the_check_cannot_redirect_the_connection() -> None:
    async with webhook_receiver() as receiver:
        resolver = Resolver("127.0.0.1", "127.0.0.9")

        assert await send(receiver.endpoint(), resolver) is None

    assert resolver.questions == 1, "the connection is made to the address that was checked"


async def test_name_that_resolves_to_a_private_address_later_is_rejected() -> None:
    resolver = Resolver("169.254.169.254")
    assert await send(Receiver(url="https://backend.example.com/").endpoint(), resolver) == "forbidden_address"


async def test_name_server_that_hangs_delays_no_other_lookup() -> None:
    answered = threading.Event()

    def getaddrinfo(host: Any, *more: Any, **named: Any) -> Any:
        if host == "hanging.example.com":
            answered.wait(100)
        return socket.getaddrinfo("localhost" if host == "hanging.example.com" else host, *more, **named)

    resolver = IsolatedResolver(getaddrinfo, timeout_seconds=90)
    hanging = [asyncio.ensure_future(resolver.resolve("hanging.example.com", 443)) for _ in range(100)]
    try:
        await asyncio.sleep(0.01)
        for lookup in hanging[:50]:
            lookup.cancel()

        assert await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("localhost", 443), 30)
        assert await asyncio.wait_for(resolver.resolve("localhost", 443), 30)
    finally:
        answered.set()
    found = await asyncio.gather(*hanging[50:])
    assert "127.0.0.1" in {entry["host"] for entry in found[0]}


async def test_certificate_must_have_the_name_of_the_url() -> None:
    async with webhook_receiver() as receiver:
        endpoint = replace(receiver.endpoint(), url=receiver.url.replace("localhost", "other.example.com"))

        assert await send(endpoint, Resolver("127.0.0.1")) == "certificate_of_other_host"
        assert await send(replace(receiver.endpoint(), ca_pem=None)) == "untrusted_certificate"

    assert not receiver.received


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_success_status_accepts_the_event(status: int) -> None:
    async with webhook_receiver() as receiver:
        receiver.status = status
        assert await send(receiver.endpoint()) is None


async def test_large_response_body_is_not_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    async with raw_server(head + b"x" * 100_000, certificate_authority()) as port:
        assert await send(Receiver(url=f"https://localhost:{port}/").endpoint()) is None


async def test_invalid_response_is_a_failure() -> None:
    async with raw_server(b"SSH-2.0-OpenSSH\r\n", certificate_authority()) as port:
        assert await send(Receiver(url=f"https://localhost:{port}/").endpoint()) in ("not_http", "closed")


@pytest.mark.timeout(60)
async def test_slow_receiver_fails_at_the_deadline() -> None:
    async with webhook_receiver() as receiver:
        receiver.delay_seconds = 60.0
        assert await send(receiver.endpoint()) == "deadline"


async def test_changed_url_is_used_for_the_next_event() -> None:
    sender = WebhookSender("dialtone/test", "/dialtone/test", Clock())
    async with webhook_receiver() as former, webhook_receiver() as changed:
        await sender.send(former.endpoint(), EVENT)
        await sender.send(changed.endpoint(), EVENT)
    await sender.close()

    assert (len(former.received), len(changed.received)) == (1, 1)


async def test_check_sends_no_event() -> None:
    sender = WebhookSender("dialtone/test", "/dialtone/test", Clock())
    async with webhook_receiver() as receiver:
        receiver.status = 405
        assert await sender.check(receiver.endpoint()) is None
        receiver.status = 301
        assert await sender.check(receiver.endpoint()) is not None
    await sender.close()

    assert not receiver.received


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),  # noqa: S104
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("2001:db8::1", "64:ff9b:1::1", "3fff::1", "5f00::1", "fec0::1", "::127.0.0.1"),
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "not base64!", encoded(b"x" * 23), encoded(b"x" * 65)])
def test_invalid_secret_is_rejected_without_its_value(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes") as caught:
        signing_secret(text)

    assert len(text) < 7 or text not in str(caught.value)


def test_secret_may_have_no_prefix() -> None:
    assert signing_secret(encoded(SECRET)) == signing_secret(encoded(SECRET).removeprefix("whsec_")) == SECRET
