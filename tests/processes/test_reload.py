"""SIGHUP on a real process: issuers, policy and keys change together, or not at all."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.sandbox.account import DEMO_KEY
from app.vending.policy import ADMIN_SCOPE
from tests.support.certificates import certificate_authority
from tests.support.http_proxy import http_proxy
from tests.support.http_server import serve
from tests.support.key_server import KeyServer
from tests.support.raw_server import http_response, raw_server
from tests.support.replicas import Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import AUDIENCE, ISSUER, logout_token, pem, rsa_key, token
from tests.support.waiting import eventually, promptly

GUESTS = "https://guests.example.com"
BY_FILE = {
    "DIALTONE_ISSUER": "",
    "DIALTONE_AUDIENCE": "",
    "DIALTONE_ISSUER_PEM": "",
    "DIALTONE_CONFIG": "dialtone.toml",
}


def issuer(name: str, source: str) -> str:
    return f'[[issuers]]\nissuer = "{name}"\naudiences = ["{AUDIENCE}"]\n{source}\n'


async def reload(running: Replica, outcome: str) -> dict[str, Any]:
    """Send SIGHUP and return the new log lines."""
    before = len(running.events(outcome))
    running.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(running.events(outcome)) > before)
    return running.events(outcome)[-1]


async def ask(running: Replica, unverified_token: str, device: str = "laptop") -> httpx.Response:
    headers = {"Authorization": f"Bearer {unverified_token}"}
    return await running.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def test_reload_changes_issuers_and_policy_together_or_nothing(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    file = tmp_path / "dialtone.toml"
    own_key = f'pem = """{pem()}"""'
    guests_key = f'pem = """{rsa_key("guests").as_pem(private=False).decode()}"""'
    guest = token("gina", iss=GUESTS, key=rsa_key("guests"))
    file.write_text(issuer(ISSUER, own_key))
    async with replica(telnyx.url, sqlite, tmp_path, BY_FILE) as running:
        assert (await ask(running, token())).status_code == 201
        assert (await ask(running, guest)).status_code == 401

        file.write_text(issuer(ISSUER, own_key) + issuer(GUESTS, "nonsense = 1"))
        refused = await reload(running, "reload_rejected")
        assert refused["reason"] == "dialtone.toml: issuers[1].nonsense: unknown setting"
        assert (await ask(running, token())).status_code == 200

        rule = f'[[policy.rules]]\nname = "guests"\nissuers = ["{GUESTS}"]\n'
        file.write_text(issuer(ISSUER, own_key) + issuer(GUESTS, guests_key) + rule)
        assert (await reload(running, "reloaded"))["rules"] == 1
        assert (await ask(running, guest)).status_code == 201
        assert (await ask(running, token())).status_code == 403

        file.unlink()
        await reload(running, "reload_rejected")
        assert (await ask(running, guest)).status_code == 200


async def test_reload_reads_a_new_telnyx_key_and_lists_settings_that_need_a_restart(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("KEY_withdrawn")
    (tmp_path / "env").write_text("DIALTONE_SIP_DOMAIN=sip.example.com\n")
    settings = {
        "TELNYX_API_KEY": "",
        "TELNYX_API_KEY_FILE": str(tmp_path / "key"),
        "DIALTONE_ENV_FILE": str(tmp_path / "env"),
    }
    async with replica(telnyx.url, sqlite, tmp_path, settings, is_ready=False) as running:
        assert (await ask(running, token())).json()["code"] == "telnyx_key_rejected"

        (tmp_path / "key").write_text(DEMO_KEY)
        (tmp_path / "env").write_text("DIALTONE_SIP_DOMAIN=other.example.com\n")
        said = await reload(running, "reloaded")

        assert said["requires_restart"] == ["DIALTONE_SIP_DOMAIN"]
        answer = await ask(running, token())
        assert answer.status_code == 201
        assert answer.json()["sip_uri"].endswith("@sip.example.com")


async def test_reload_refetches_key_sets(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    provider = KeyServer()
    async with serve(provider.app()) as url:
        (tmp_path / "dialtone.toml").write_text(issuer(ISSUER, f'jwks_url = "{url}/jwks"'))
        async with replica(telnyx.url, sqlite, tmp_path, BY_FILE) as running:
            assert (await ask(running, token())).status_code == 201
            provider.keys = [rsa_key("new")]

            await reload(running, "key_set_fetched")

            assert (await ask(running, token())).status_code == 401
            assert (await ask(running, token(key=rsa_key("new")))).status_code == 200


async def test_reload_under_load_rejects_no_request(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "dialtone.toml").write_text(issuer(ISSUER, f'pem = """{pem()}"""'))
    async with replica(telnyx.url, sqlite, tmp_path, BY_FILE) as running:
        statuses: set[int] = {(await ask(running, token())).status_code} - {201}
        is_over = False

        async def keep_asking() -> None:
            while not is_over:
                statuses.add((await ask(running, token())).status_code)

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        await eventually(lambda: statuses)
        for _ in range(5):
            await reload(running, "reloaded")
        is_over = True
        await asyncio.gather(*asking)

    assert statuses == {200}


async def test_logout_reaches_other_replicas_within_two_seconds(telnyx: Telnyx, postgres: str, tmp_path: Path) -> None:
    async with (
        replica(telnyx.url, postgres, tmp_path) as here,
        replica(telnyx.url, postgres, tmp_path) as there,
    ):
        before = token()
        for running in (here, there):
            assert (await ask(running, before)).status_code in (200, 201)

        async def is_rejected() -> bool:
            return (await ask(there, before)).status_code == 401

        answer = await here.client.post("/v1/backchannel-logout", data={"logout_token": logout_token()})

        assert answer.status_code == 200
        assert (await ask(here, before)).status_code == 401
        await promptly(is_rejected, 2.0)
        await eventually(lambda: telnyx.live() == [])


async def test_key_refresh_reaches_all_replicas(telnyx: Telnyx, postgres: str, tmp_path: Path) -> None:
    provider = KeyServer()
    async with serve(provider.app()) as url:
        by_url = {"DIALTONE_ISSUER_PEM": "", "DIALTONE_JWKS_URL": f"{url}/jwks"}
        async with (
            replica(telnyx.url, postgres, tmp_path, by_url) as here,
            replica(telnyx.url, postgres, tmp_path, by_url) as there,
        ):
            old = token()
            for running in (here, there):
                assert (await ask(running, old)).status_code in (200, 201)
            provider.keys = [rsa_key("new")]
            operator = token("olga", scope=ADMIN_SCOPE, key=rsa_key("new"))

            async def is_rejected() -> bool:
                return (await ask(there, old)).status_code == 401

            answer = await here.client.post(
                "/v1/admin/keys/refresh", headers={"Authorization": f"Bearer {operator}"}, json={}
            )

            assert answer.json() == {"refreshed": {ISSUER: True}}
            await promptly(is_rejected, 2.5)


async def test_plain_http_is_logged_at_the_start_and_after_a_reload(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    file = tmp_path / "dialtone.toml"
    plain, secure = "http://keycloak.auth.svc:1/keys", "https://127.0.0.1:1/keys"
    own_key = issuer(ISSUER, f'pem = """{pem()}"""')
    file.write_text(own_key + issuer(GUESTS, f'allow_http = true\njwks_url = "{plain}"'))
    async with replica(telnyx.url, sqlite, tmp_path, BY_FILE) as running:
        await eventually(lambda: running.events("plain_http_key_set"))
        assert [event["issuer"] for event in running.events("plain_http_key_set")] == [GUESTS]

        file.write_text(own_key + issuer(GUESTS, f'allow_http = true\njwks_url = "{secure}"'))
        await reload(running, "reloaded")
        assert len(running.events("plain_http_key_set")) == 1

        file.write_text(own_key + issuer(GUESTS, f'allow_http = true\njwks_url = "{plain}"'))
        await reload(running, "plain_http_key_set")


async def test_reload_changes_the_header_of_an_issuer(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    file = tmp_path / "dialtone.toml"
    own_key = f'pem = """{pem()}"""'
    file.write_text(issuer(ISSUER, own_key))
    in_header = {"X-Token": token(), "Origin": "https://app.example.com"}
    path, body = "/v1/telephony-credentials", {"device_id": "laptop"}
    changes = BY_FILE | {"DIALTONE_CORS_ORIGINS": "https://app.example.com"}
    async with replica(telnyx.url, sqlite, tmp_path, changes) as running:
        assert (await ask(running, token())).status_code == 201
        assert (await running.client.post(path, headers=in_header, json=body)).status_code == 401

        file.write_text(issuer(ISSUER, f'{own_key}\nheader = "X-Token"'))
        await reload(running, "reloaded")

        assert (await ask(running, token())).status_code == 401
        assert (await running.client.post(path, headers=in_header, json=body)).status_code == 200


async def test_reload_cleans_values_and_warns_of_misspelt_names_as_at_startup(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    env_file, key = tmp_path / "env", tmp_path / "key"
    key.write_text(f'\ufeff"{DEMO_KEY}"\r\n')
    env_file.write_bytes(f"\ufeffTELNYX_API_KEY_FILE='{key}'\r\nDIALTONE_MAX_DEVICE=1\r\n".encode())
    settings = {"TELNYX_API_KEY": "", "DIALTONE_ENV_FILE": str(env_file), "DIALTONE_ISSUER": f'"{ISSUER}"\n'}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as running:
        assert (await ask(running, token())).status_code == 201
        await eventually(lambda: len(running.events("doubtful_setting")) >= 2)
        warned = [event["setting"] for event in running.events("doubtful_setting")]
        assert warned == ["DIALTONE_MAX_DEVICE", "DIALTONE_ISSUER"]

        key.write_text("CANARY\u200bkey")
        refused = await reload(running, "reload_rejected")
        assert refused["reason"].startswith("the file of TELNYX_API_KEY_FILE contains the invisible character U+200B")
        env_file.unlink()
        refused = await reload(running, "reload_rejected")
        assert refused["reason"] == f"DIALTONE_ENV_FILE names a file that does not exist: {env_file}"
        assert "CANARY" not in running.log.read_text()


async def test_reload_applies_a_new_password_of_the_egress_proxy(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    authority, file = certificate_authority(host="id.test"), tmp_path / "proxy"
    keys = json.dumps({"keys": [rsa_key().as_dict(private=False)]}).encode()
    (tmp_path / "ca.pem").write_text(authority.pem)
    answer = http_response(keys, "Content-Type: application/json")
    async with raw_server(answer, authority) as port, http_proxy("user:OLD_CANARY") as proxy:
        proxy.resolves["id.test:443"] = ("127.0.0.1", port)
        file.write_text(proxy.url)
        settings = {
            "DIALTONE_ISSUER_PEM": "",
            "DIALTONE_JWKS_URL": "https://id.test/keys",
            "DIALTONE_ISSUER_CA_FILE": str(tmp_path / "ca.pem"),
            "DIALTONE_EGRESS_PROXY_FILE": str(file),
        }
        async with replica(telnyx.url, sqlite, tmp_path, settings) as running:
            assert (await ask(running, token())).status_code == 201
            proxy.credentials = "user:NEW_CANARY"
            await reload(running, "key_set_fetch_failed")

            file.write_text(proxy.url)
            await reload(running, "key_set_fetched")
            applied = running.events("reloaded")[-1]
            file.write_text(proxy.url.replace("127.0.0.1", "CANARY.example.com"))
            other_host = await reload(running, "reloaded")
            await reload(running, "key_set_fetched")

            assert applied["requires_restart"] == []
            assert other_host["requires_restart"] == ["DIALTONE_EGRESS_PROXY"]
            assert "CANARY" not in running.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_that_is_requested_during_the_start_follows_it(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, workers: int
) -> None:
    key, pid = tmp_path / "key", tmp_path / "pid"
    os.mkfifo(key)
    (tmp_path / "new key").write_text(DEMO_KEY)

    def write_pid() -> None:
        pid.write_text(str(os.getpid()))

    def hang_up_while_settings_are_read() -> None:
        with key.open("w") as pipe:  # waits for the service
            os.kill(int(pid.read_text()), signal.SIGHUP)
            (tmp_path / "new key").rename(key)
            pipe.write(DEMO_KEY)

    hanging_up = asyncio.create_task(asyncio.to_thread(hang_up_while_settings_are_read))
    settings = {"TELNYX_API_KEY": "", "TELNYX_API_KEY_FILE": str(key), "DIALTONE_WORKERS": str(workers)}
    async with replica(telnyx.url, sqlite, tmp_path, settings, before_start=write_pid) as running:
        await hanging_up

        await eventually(lambda: len(running.events("reloaded")) == workers)
