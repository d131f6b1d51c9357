"""`dialtone doctor` checks the configuration and suggests fixes; audit, pool, settings and push commands."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.check_result import CheckVerdict
from app.cli.doctor_checks import check_all, check_clock
from app.composition.build import build_components
from app.composition.components import Overrides
from app.sandbox.account import DEMO_CONNECTION
from tests.support.certificates import certificate_authority
from tests.support.databases import migrate_database
from tests.support.http_proxy import http_proxy
from tests.support.http_server import refusing_port, serve
from tests.support.key_server import KeyServer
from tests.support.leases import NOW
from tests.support.push_material import android
from tests.support.raw_server import http_response, raw_server
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.shared_logins import KEY
from tests.support.tokens import ISSUER, pem, rsa_key, token
from tests.support.waiting import eventually


async def dialtone(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, app, list(arguments))


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service, and the environment of a shell on the same machine."""
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DIALTONE_CORS_ORIGINS", "https://app.example.com")
    async with running_service(telnyx, sqlite) as service:
        yield service


async def findings(**wanted: str) -> tuple[int, dict[str, list[str]]]:
    """The exit status, and the findings by verdict."""
    result = await dialtone("doctor", "--json")
    found: dict[str, list[str]] = {}
    for finding in json.loads(result.stdout):
        found.setdefault(finding["verdict"], []).append(f"{finding['about']}: {finding['seen']}")
        assert finding["verdict"] == "ok" or finding["fix"], "every problem has a suggested fix"
    return result.exit_code, found


async def test_doctor_passes_a_correct_deployment(service: Service) -> None:
    status, found = await findings()

    assert status == 0
    assert "failed" not in found
    assert f"connection {DEMO_CONNECTION}: it exists and is active" in found["ok"]
    assert "clock: matches Telnyx's" in found["ok"]


async def test_strict_mode_fails_on_warnings(service: Service) -> None:
    result = await dialtone("doctor", "--strict")

    assert result.exit_code == 1
    assert "this is the sandbox" in result.stdout
    assert "-> register push material" in result.stdout


async def test_cost_of_a_stolen_login_is_reported(service: Service, telnyx: Telnyx) -> None:
    about = f"connection {DEMO_CONNECTION}: a stolen login"
    without_profile = (await findings())[1]["ok"]
    telnyx.limit_outbound(daily_spend_limit="20", daily_spend_limit_enabled=True, whitelisted_destinations=["GB"])
    limited = (await findings())[1]["ok"]
    telnyx.limit_outbound()
    unlimited = (await findings())[1]["warning"]

    assert f"{about} cannot call phone numbers, because there is no enabled outbound voice profile" in without_profile
    assert f"{about} can spend up to 20.00 USD a day on calls to GB" in limited
    assert f"{about} can spend without a limit on calls to US and CA" in unlimited


async def test_spend_limits_of_the_account_are_reported(service: Service, telnyx: Telnyx) -> None:
    telnyx.sandbox.billing.spend_limits = [
        {"product": "inference", "period": "daily", "effective_limit_usd": "5.00"},
        {"product": "inference", "period": "monthly", "effective_limit_usd": None},
    ]

    found = [line for line in (await findings())[1]["ok"] if line.startswith("account spend limits")]

    assert "\n".join(found) == (
        "account spend limits: inference daily 5.00 USD, inference monthly unlimited; "
        "Telnyx documents no spend limit for calls"
    )


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_unreadable_outbound_limits_are_a_warning(service: Service, telnyx: Telnyx, status: int) -> None:
    telnyx.limit_outbound()
    telnyx.fail("status", status=status, path="outbound_voice_profiles|spend_limits", times=99)

    code, found = await findings()

    assert code == 0
    assert any("its outbound limits are not known" in line for line in found["warning"])


@pytest.fixture
def limits_required(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The environment of the shell names a file whose rule `staff` requires outbound limits."""
    (tmp_path / "key.pem").write_text(pem())
    (tmp_path / "dialtone.toml").write_text(
        f"""
        [[issuers]]
        issuer = "{ISSUER}"
        audiences = ["dialtone"]
        pem_file = "{tmp_path / "key.pem"}"
        [[policy.rules]]
        name = "staff"
        outbound = "limited"
        """
    )
    for name in ("DIALTONE_ISSUER", "DIALTONE_AUDIENCE", "DIALTONE_ISSUER_PEM"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DIALTONE_CONFIG", str(tmp_path / "dialtone.toml"))


@pytest.mark.usefixtures("limits_required")
async def test_rule_that_its_connection_does_not_meet_is_reported(telnyx: Telnyx) -> None:
    assert (await dialtone("config", "check", "--online")).exit_code == 0
    telnyx.limit_outbound()

    assert "\n".join(await bad()) == (
        f'connection {DEMO_CONNECTION}: users of the rule staff (outbound = "limited") cannot log in: '
        "its outbound voice profile enforces no daily spend limit"
    )
    online = await dialtone("config", "check", "--online")
    assert (await dialtone("config", "check")).exit_code == 0
    assert online.exit_code == 1
    assert online.stderr.endswith(
        f"Configuration: rule staff: connection {DEMO_CONNECTION} is not `limited`: "
        "its outbound voice profile enforces no daily spend limit.\n"
    )


@pytest.mark.usefixtures("limits_required")
async def test_connection_of_a_rule_that_cannot_be_read_is_reported(telnyx: Telnyx) -> None:
    telnyx.limit_outbound()
    telnyx.fail("status", status=404, path="outbound_voice_profiles", times=99)
    absent = "the connection or its outbound voice profile does not exist at Telnyx"

    online = await dialtone("config", "check", "--online")

    assert "\n".join(await bad()) == (
        f"connection {DEMO_CONNECTION}: its outbound limits are not known: {absent}; "
        "users of the rule staff cannot log in unless the replica has an earlier result"
    )
    assert online.exit_code == 1
    assert online.stderr.endswith(
        f"Configuration: rule staff: the outbound limits of connection {DEMO_CONNECTION} cannot be read: {absent}.\n"
    )


async def bad(**wanted: str) -> list[str]:
    status, found = await findings()
    assert status == 1
    return found["failed"]


async def test_rejected_api_key_is_reported(service: Service, telnyx: Telnyx) -> None:
    telnyx.sandbox.account.api_keys = ("another",)

    assert await bad() == ["Telnyx key: Telnyx rejects it"]


async def test_unknown_connection_is_reported(service: Service, telnyx: Telnyx) -> None:
    telnyx.sandbox.account.connections.clear()

    assert await bad() == [f"connection {DEMO_CONNECTION}: it does not exist in this Telnyx account"]


async def test_inactive_or_uncallable_connection_is_reported(service: Service, telnyx: Telnyx) -> None:
    connection = telnyx.sandbox.account.connections[DEMO_CONNECTION]
    connection |= {"active": False, "sip_uri_calling_preference": "disabled"}

    status, found = await findings()

    assert status == 1
    assert found["failed"] == [f"connection {DEMO_CONNECTION}: it is disabled: no device can log in"]
    assert any("cannot call each other" in line for line in found["warning"])


async def test_telnyx_outage_is_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELNYX_BASE_URL", f"http://127.0.0.1:{refusing_port()}/v2")

    assert [line.split(":")[0] for line in await bad()] == [f"connection {DEMO_CONNECTION}"]


async def test_unmigrated_ledger_is_reported(service: Service, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")

    assert (await bad())[0].startswith("ledger: unreachable, read-only or not migrated")


async def test_issuer_without_keys_is_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIALTONE_ISSUER_PEM")
    monkeypatch.setenv("DIALTONE_JWKS_URL", f"http://127.0.0.1:{refusing_port()}/jwks")

    assert any("no usable key to verify tokens" in line for line in await bad())


async def test_redis_outage_is_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_REDIS_URL", f"redis://127.0.0.1:{refusing_port()}/0")

    assert await bad() == ["limits: Redis does not respond, so each replica counts only its own requests"]


async def test_outage_of_the_shared_login_cache_is_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_LOGIN_CACHE_URL", f"redis://127.0.0.1:{refusing_port()}/0")
    monkeypatch.setenv("DIALTONE_LOGIN_CACHE_KEYS", KEY)

    assert await bad() == [
        "shared login cache: the store cannot be used (connection), so each replica mints its own logins"
    ]


async def test_missing_or_insecure_origins_are_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_CORS_ORIGINS", "http://phone.example.com")
    assert any("http://phone.example.com is plain http" in line for line in (await findings())[1]["warning"])

    monkeypatch.delenv("DIALTONE_CORS_ORIGINS")
    assert any("no web page may call" in line for line in (await findings())[1]["warning"])


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5173",
        "http://127.0.0.2:3000",
        "http://[::1]:3000",
        "http://*.localhost",
        "http://tauri.localhost",
        "http://app.localhost:8080",
        "capacitor://localhost",
        "https://app.example.com",
    ],
)
async def test_local_origin_is_secure(service: Service, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("DIALTONE_CORS_ORIGINS", origin)

    assert "CORS: 1 origin" in (await findings())[1]["ok"]


@pytest.mark.parametrize("origin", ["http://localhost.example.com", "http://notlocalhost", "http://10.0.0.1"])
async def test_remote_http_origin_is_not_secure(service: Service, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("DIALTONE_CORS_ORIGINS", origin)

    assert f"CORS: {origin} is plain http" in (await findings())[1]["warning"]


async def test_doubtful_settings_are_warnings(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "env").write_text("DIALTONE_MAX_DEVICE=CANARY\n")
    monkeypatch.setenv("DIALTONE_ENV_FILE", str(tmp_path / "env"))

    warnings = (await findings())[1]["warning"]

    assert f"DIALTONE_MAX_DEVICE: is not a setting of Dialtone; {tmp_path / 'env'} sets it" in warnings
    assert f"DIALTONE_ISSUER: {ISSUER} looks like an example" in warnings


async def test_egress_proxy_is_checked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_EGRESS_PROXY", f"http://user:CANARY@127.0.0.1:{refusing_port()}")
    local = await findings()
    monkeypatch.setenv("TELNYX_BASE_URL", "https://api.telnyx.test/v2")
    remote = await findings()

    assert "egress proxy: not used for Telnyx, because the sandbox is on this machine" in local[1]["ok"]
    assert "egress proxy: the egress proxy is unreachable" in remote[1]["failed"]
    assert "CANARY" not in str(remote)


async def test_fix_names_the_settings_as_the_operator_writes_them(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("DIALTONE_ISSUER_PEM")
    answer = KeyServer(answer=lambda _: Response(status_code=404))
    async with serve(answer.app()) as url:
        monkeypatch.setenv("DIALTONE_JWKS_URL", f"{url}/jwks")
        with_variables = (await dialtone("doctor")).stdout
        text = f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["dialtone"]\njwks_url = "{url}/jwks"\n'
        (tmp_path / "dialtone.toml").write_text(text)
        for name in ("DIALTONE_ISSUER", "DIALTONE_AUDIENCE", "DIALTONE_JWKS_URL"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("DIALTONE_CONFIG", str(tmp_path / "dialtone.toml"))
        with_file = (await dialtone("doctor")).stdout

    assert "-> set DIALTONE_JWKS_URL to the URL of the key set" in with_variables
    assert "-> set `jwks_url` to the URL of the key set" in with_file


async def test_invalid_setting_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_ENV_FILE", "")

    result = await dialtone("doctor")

    assert result.exit_code == 1
    assert result.stderr.startswith("Configuration: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("sent", "arrived", "seen"),
    [
        (-90, -90, "differs from Telnyx's by -90 s"),
        (90, 98, "differs from Telnyx's by +90 s"),
        (-98, -90, "differs from Telnyx's by -90 s"),
        (-5, -5, "matches Telnyx's"),
        (5, 13, "matches Telnyx's"),
    ],
)
def test_clock_skew_is_reported(sent: float, arrived: float, seen: str) -> None:
    """`sent` and `arrived` are seconds after the time in Telnyx's response."""
    finding = check_clock(NOW + timedelta(seconds=sent), NOW, NOW + timedelta(seconds=arrived))

    assert (finding.verdict is CheckVerdict.FAILED, finding.seen) == ("differs" in seen, seen)


@pytest.mark.parametrize("path", ["credential_connections", "outbound_voice_profiles"])
async def test_slow_response_is_no_clock_skew(telnyx: Telnyx, sqlite: str, path: str) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        """The sandbox, whose responses to some requests take a minute at the clock of the command."""
        if path in scope["path"]:
            telnyx.clock.advance(timedelta(minutes=1))
        await telnyx.sandbox(scope, receive, send)

    telnyx.limit_outbound()
    await migrate_database(sqlite)
    async with serve(slow) as url:
        settings = settings_for(f"{url}/v2", sqlite)
        components = build_components(settings, Overrides(clock=telnyx.clock))
        async with components.open():
            found = [finding.seen async for finding in check_all(settings, components) if finding.about == "clock"]

    assert found == ["matches Telnyx's"]


async def test_audit_is_printed_as_text_and_json(service: Service) -> None:
    lease = (await service.issue("laptop")).json()["id"]
    await service.issue("laptop", user="bob")
    await eventually(lambda: not service.components.audit.queued, 30)

    text = await dialtone("audit", "tail")
    of_alice = await dialtone("audit", "tail", "--user", "alice", "--json")

    assert [line.split("  ")[1].strip() for line in text.stdout.splitlines()] == ["issued", "issued"]
    told = [json.loads(line) for line in of_alice.stdout.splitlines()]
    assert [(event["subject"], event["lease_id"]) for event in told] == [("alice", lease)]


async def test_commands_are_recorded_in_the_audit(service: Service) -> None:
    lease = (await service.issue("laptop")).json()["id"]

    await dialtone("leases", "revoke", lease)
    told = json.loads((await dialtone("audit", "tail", "--lease", lease, "--action", "revoked", "--json")).stdout)

    assert (told["reason"], told["actor_issuer"]) == ("asked_by_operator", "shell")
    assert told["actor_subject"]


async def test_pool_status_shows_ready_credentials(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await service.issue("laptop")

    plain = await dialtone("warm-pool")
    for_scripts = json.loads((await dialtone("warm-pool", "--json")).stdout)

    assert "DIALTONE_WARM_POOL_SIZE is 0" in plain.stdout
    assert for_scripts == {
        "target": {},
        "ready": {DEMO_CONNECTION: 0},
        "leases": {"pending": 0, "active": 1, "pooled": 0},
    }


async def test_pool_status_shows_the_target_by_default(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_WARM_POOL_SIZE", "auto")

    report = json.loads((await dialtone("warm-pool", "--json")).stdout)

    assert report["target"] == {DEMO_CONNECTION: 3}
    assert f"connection {DEMO_CONNECTION}: 0 of 3 ready" in (await dialtone("warm-pool")).stdout


async def test_push_credentials_are_listed_without_key_material(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    made = (await service.client.post("/v1/push-credentials", headers=headers, json=android())).json()

    rows = json.loads((await dialtone("push", "ls", "--json")).stdout)
    table = (await dialtone("push", "ls")).stdout

    assert [(row["type"], row["app_id"], row["users"], row["attached"]) for row in rows] == [
        ("android", made["app_id"], 1, False)
    ]
    assert made["app_id"] in table
    assert "PRIVATE" not in json.dumps(rows) + table


async def test_shell_completion_is_printed() -> None:
    assert "--install-completion" in (await dialtone("--help")).stdout


async def issuer_findings(monkeypatch: pytest.MonkeyPatch, provider: KeyServer, **changes: str) -> dict[str, list[str]]:
    """The findings about an issuer whose key set this provider has."""
    monkeypatch.delenv("DIALTONE_ISSUER_PEM")
    async with serve(provider.app()) as url:
        monkeypatch.setenv("DIALTONE_JWKS_URL", f"{url}/jwks")
        _, found = await findings()
    about = f"issuer {ISSUER}: "
    return {verdict: [text.removeprefix(about) for text in texts if about in text] for verdict, texts in found.items()}


async def test_skipped_key_is_a_warning_unless_it_is_for_another_use(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = rsa_key().as_dict(private=False)
    entries = [good, good | {"kid": "enc", "use": "enc"}, {"kid": "weak", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]
    provider = KeyServer(answer=lambda _: JSONResponse({"keys": entries}))

    found = await issuer_findings(monkeypatch, provider)

    assert found["warning"] == ["1 usable key; skipped weak: an RSA key of 17 bits; 2048 to 8192 are allowed"]


async def test_unusable_key_set_is_reported_with_the_reason(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await issuer_findings(monkeypatch, KeyServer(answer=lambda _: Response(status_code=404)))

    (failure,) = found["failed"]
    assert failure.startswith("no usable key to verify tokens: the request for the key set at http://127.0.0.1:")
    assert failure.endswith("/jwks returned status 404")


@asynccontextmanager
async def load_balancer(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, answer: bytes) -> AsyncIterator[None]:
    """Tokens of a load balancer, whose keys are behind the egress proxy."""
    host = "public-keys.auth.elb.eu-west-1.amazonaws.com"
    authority = certificate_authority(host=host)
    (tmp_path / "ca.pem").write_text(authority.pem)
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/phones/0123456789abcdef"
    monkeypatch.delenv("DIALTONE_ISSUER_PEM")
    monkeypatch.setenv("DIALTONE_ISSUER_HEADER", "x-amzn-oidc-data")
    monkeypatch.setenv("DIALTONE_ISSUER_SIGNER", arn)
    monkeypatch.setenv("DIALTONE_ISSUER_CA_FILE", str(tmp_path / "ca.pem"))
    async with raw_server(answer, authority) as port, http_proxy() as proxy:
        proxy.resolves = {f"{host}:443": ("127.0.0.1", port)}
        monkeypatch.setenv("DIALTONE_EGRESS_PROXY", proxy.url)
        yield


async def test_keys_on_demand_are_not_missing(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    async with load_balancer(monkeypatch, tmp_path, http_response(b"", status="403 Forbidden")):
        _, found = await findings()

    assert f"issuer {ISSUER}: its keys are fetched when tokens name them" in found["ok"]


async def test_keys_on_demand_that_cannot_be_fetched_are_reported(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    async with load_balancer(monkeypatch, tmp_path, http_response(b"", status="302 Found")):
        _, found = await findings()

    (failure,) = found["failed"]
    assert failure.startswith(f"issuer {ISSUER}: no usable key to verify tokens: the request for the key of the load")
    assert "returned status 302" in failure
