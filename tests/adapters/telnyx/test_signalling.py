"""The address of the signalling server, as version 2.27 of the WebRTC SDK computes it."""

import pytest

from app.adapters.telnyx.signalling import signalling_url


@pytest.mark.parametrize(
    ("host", "region", "url"),
    [
        (None, None, "wss://rtc.telnyx.com"),
        (None, "eu", "wss://eu.rtc.telnyx.com"),
        ("wss://rtc.example.com", None, "wss://rtc.example.com"),
        ("wss://rtc.example.com", "eu", "wss://eu.rtc.example.com"),
        ("ws://127.0.0.1:8011", "eu", "ws://127.0.0.1:8011"),
    ],
)
def test_region_is_inserted_before_the_first_rtc(host: str | None, region: str | None, url: str) -> None:
    assert signalling_url(host, region) == url
