"""Remote mode against a service that is hostile, is broken, or has another version."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.support.command_line import RemoteShell
from tests.support.http_proxy import http_proxy
from tests.support.raw_server import http_response, raw_server

JSON = "Content-Type: application/json"
PROBLEM = "Content-Type: application/problem+json"
EMPTY = b'{"data": [], "next_cursor": null}'

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"
"""Sequences that control a terminal: its title, an erased screen, a colour after an 8-bit introducer, reversed text."""

IN_HEADER = ESCAPES.rstrip("\r")
LEASE = "0" * 32
DONE_SWEEP = {"walked": ESCAPES, "foreign": 0, "young": 0, "deleted_orphans": 0, "ended": 0, "irrevocable": []}
ERASED = {"leases": 1, "credentials": 0, "push_registrations": 0, "audit_events": 0, "complete": True}
ERASE = "users erase --issuer a --user b --confirm c"


def json_response(value: Any, *headers: str, status: str = "200 OK") -> bytes:
    media_type = JSON if status == "200 OK" else PROBLEM
    return http_response(json.dumps(value).encode(), media_type, *headers, status=status)


def rows(*found: dict[str, Any]) -> bytes:
    return json_response({"data": found, "next_cursor": None})


async def result_of(response: bytes, line: str, folder: Path, **extra: str) -> Result:
    """The result of a command against a server that sends this to each request. The command must not crash."""
    file = folder / "token"
    file.write_text("TOKEN_CANARY")
    async with raw_server(response) as port:
        done = await RemoteShell(f"http://127.0.0.1:{port}", file, extra).run(*line.split())
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "CANARY" not in done.output
    return done


HOSTILE = {
    "title": (json_response({"title": ESCAPES, "code": ESCAPES, "request_id": ESCAPES}, status="403 No"), "leases ls"),
    "faults": (
        json_response({"code": "a", "errors": [{"message": ESCAPES}, 1]}, status="422 No"),
        "leases ls",
    ),
    "retry-after": (json_response({"code": "a"}, f"Retry-After: {IN_HEADER}", status="429 No"), "leases ls"),
    "location": (http_response(b"", f"Location: https://{IN_HEADER}.example.com/", status="302 Found"), "leases ls"),
    "location of control characters": (
        http_response(b"", "Location: https://a\x1b\x9b31m.example.com/", status="302 Found"),
        "leases ls",
    ),
    "content type": (http_response(b"x", f"Content-Type: text/{IN_HEADER}"), "leases ls"),
    "json": (rows({ESCAPES: ESCAPES}), "leases ls --json"),
    "json of an event": (rows({ESCAPES: ESCAPES}), "audit tail --json"),
    "fields": (json_response({"id": 1, ESCAPES: ESCAPES}), f"leases show {LEASE}"),
    "candidates": (rows(*2 * [dict.fromkeys(("id", "state", "device_id"), ESCAPES)]), "leases show 0123"),
    "issuers": (json_response({"refreshed": {ESCAPES: True}}), "keys refresh"),
    "not before": (json_response(dict.fromkeys(("reach", "name", "not_before"), ESCAPES)), "tokens refuse a"),
    "sweep": (
        json_response(
            {
                "state": "done",
                "report": {
                    **DONE_SWEEP,
                    "due": [{"credential": ESCAPES, "state": ESCAPES}],
                    "orphans": [{"credential": ESCAPES, "why": ESCAPES}],
                },
            }
        ),
        "sweep",
    ),
    "warm pool": (
        json_response({"warm_pool_target": {ESCAPES: 1}, "warm_pool_ready": {}, "leases": {ESCAPES: 1}}),
        "warm-pool",
    ),
    "attachments": (
        json_response(
            {name: {"now": {"app_id": ESCAPES, "telnyx_id": ESCAPES}, "before": None} for name in ("ios", "android")}
        ),
        "push attach 7 --ios a",
    ),
    "pseudonym": (json_response({**ERASED, "unconfirmed": 0, "pseudonym": ESCAPES}), ERASE),
}


@pytest.mark.parametrize(("response", "line"), HOSTILE.values(), ids=HOSTILE)
async def test_text_of_a_hostile_service_does_not_control_the_terminal(
    tmp_path: Path, response: bytes, line: str
) -> None:
    done = await result_of(response, line, tmp_path)

    assert done.output
    assert all(letter.isprintable() or letter in "\n\t" for letter in done.output), repr(done.output)


async def test_escaped_json_has_the_same_values(tmp_path: Path) -> None:
    done = await result_of(rows({ESCAPES: f"東京 😀 {ESCAPES}"}), "leases ls --json", tmp_path)

    assert json.loads(done.stdout) == [{ESCAPES: f"東京 😀 {ESCAPES}"}]
    assert "東京 😀" in done.stdout


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"data": "rows", "next_cursor": null}', "leases ls"),
        (b'{"data": [1], "next_cursor": null}', "leases ls"),
        (b'{"data": [{"new": 1}], "next_cursor": null}', "leases ls"),
        (b'{"data": [{"new": 1}], "next_cursor": null}', "audit tail"),
        (b'{"data": "rows"}', "push ls"),
        (b'{"data": [{"new": 1}]}', "push ls"),
        (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "leases ls"),
        (b'{"data": ' + b"9" * 10_000 + b"}", "leases ls"),
        (json.dumps(ERASED).encode(), ERASE),
    ],
    ids=[
        *("no list", "no rows", "other fields", "other event", "no list of push credentials", "other push fields"),
        *("deep", "huge number", "erasure without the unconfirmed deletions"),
    ],
)
async def test_response_without_the_expected_fields_is_a_failure(tmp_path: Path, body: bytes, line: str) -> None:
    done = await result_of(http_response(body, JSON), line, tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


async def test_object_without_fields_is_printed_as_nothing(tmp_path: Path) -> None:
    assert (await result_of(json_response({}), f"leases show {LEASE}", tmp_path)).output == ""


async def test_erasure_without_a_body_is_a_failure(tmp_path: Path) -> None:
    done = await result_of(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", ERASE, tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "The response is not one of Dialtone (status 204)." in done.stderr


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n24\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nContent-Type: appl",
        b"",
    ],
    ids=["body", "chunk", "head", "nothing"],
)
async def test_half_a_response_is_a_failure(tmp_path: Path, response: bytes) -> None:
    done = await result_of(response, "leases ls", tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("No valid response from http://127.0.0.1:")
    assert done.stderr.count("\n") == 1


async def test_response_without_end_is_cut_off(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    done = await result_of(head + b" " * (17 * 1024 * 1024), "leases ls", tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "the response is too large" in done.stderr


async def test_compressed_response_is_not_unpacked(tmp_path: Path) -> None:
    done = await result_of(http_response(EMPTY, JSON, "Content-Encoding: gzip"), "leases ls", tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "the response is compressed" in done.stderr


async def test_plain_http_to_this_machine_uses_no_proxy(tmp_path: Path) -> None:
    async with http_proxy() as proxy:
        names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY")
        done = await result_of(json_response({"data": [], "next_cursor": None}), "leases ls", tmp_path,
                               **dict.fromkeys(names, proxy.url))  # fmt: skip

    assert (done.exit_code, proxy.targets) == (0, []), done.output


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(app, list(arguments))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://operator:PASSWORD_CANARY@host:0", "http://a b"])
def test_invalid_proxy_of_the_environment_is_a_usage_error(tmp_path: Path, proxy: str) -> None:
    (tmp_path / "token").write_text("token")
    variables = {"DIALTONE_URL": "https://dialtone.example.com", "DIALTONE_TOKEN_FILE": str(tmp_path / "token")}

    done = invoke("leases", "ls", **variables, HTTPS_PROXY=proxy, https_proxy=proxy)

    assert (done.exit_code, done.stdout) == (2, "")
    assert "HTTPS_PROXY is not the URL of an HTTP proxy" in done.stderr
    assert "CANARY" not in done.stderr


def test_token_in_place_of_its_file_is_not_printed() -> None:
    done = invoke("--url", "https://dialtone.example.com", "--token-file", "eyJ.CANARY.sig", "leases", "ls")

    assert done.exit_code == 2
    assert "never as an argument" in done.stderr
    assert "CANARY" not in done.output
