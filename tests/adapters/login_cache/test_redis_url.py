"""Addresses of Redis and Valkey servers: every part has an effect, or one line says which part has none."""

from pathlib import Path

import pytest

from app.adapters.login_cache.redis_url import check_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host",
        "redis://host/",
        "redis://host:6379/0",
        "redis://host?db=2",
        "redis://:p%40ss@host",
        "redis://user:p@ss@host",
        "redis://[::1]:6379/1",
        "redis://redis_1.internal:6379",
        "rediss://default:pass@host.upstash.io:6379",
        "rediss://host?ssl_cert_reqs=none&ssl_check_hostname=false",
        "rediss://host?health_check_interval=30&socket_keepalive=true&client_name=dialtone",
    ],
)
def test_usual_addresses_are_accepted(url: str) -> None:
    check_url(url)


MISTAKES = {
    "redis://host:port/0": "a part that the Redis client does not accept",
    "redis://host?nonsense": "a malformed part",
    "redis://host/0?nonsense=1": "a parameter that is not supported",
    "redis://host/0?credential_provider=x": "a parameter that is not supported",
    "redis://host/0?socket_timeout=x": "a part that the Redis client does not accept",
    "redis://host/0?ssl_cert_reqs=none": "a part that the Redis client does not accept",
    "redis://host/cache": "a database that is not a number",
    "redis://host/0/1": "a database that is not a number",
    "redis://host/-1": "a database that is not a number",
    "redis://host?db=-1": "a database that is not a number",
    "redis://one,two/0": "an invalid host, or several",
    "redis://one:6379,two:6379/0": "a part that the Redis client does not accept",
    "redis://user:12/34@host": "is ambiguous",
    "redis://user:12?34=5@host": "is ambiguous",
    "redis://user:12#34@host": "is ambiguous",
    "redis://ho st": "white space",
    "redis://host?decode_responses=true": "Dialtone sets itself: decode_responses",
    "redis://host?max_connections=1": "Dialtone sets itself: max_connections",
    "redis://host?protocol=9": "Dialtone sets itself: protocol",
    "redis://host?retry=3": "Dialtone sets itself: retry",
    "rediss://host?ssl_cert_reqs=CERT_NONE": "ssl_cert_reqs; it is one of none, optional, required",
    "rediss://host?ssl_ca_certs=/missing/ca.pem": "a file that cannot be read: ssl_ca_certs",
}


@pytest.mark.parametrize(("url", "message"), MISTAKES.items())
def test_address_with_a_mistake_is_rejected(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_url(url)


def test_address_with_a_file_that_can_be_read_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()

    check_url(f"rediss://user:pass@host:6380/2?ssl_ca_certs={file}")


@pytest.mark.parametrize("url", ["redis://u:S3CRET@h:port", "redis://u:S3CRET#@h", "rediss://h?ssl_cert_reqs=S3CRET"])
def test_error_contains_no_value(url: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is what is tested
        check_url(url)

    assert "S3CRET" not in str(raised.value)
