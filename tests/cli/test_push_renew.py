"""`dialtone push renew`: a job replaces a certificate at a running service, with a token from a file."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.sandbox.account import DEMO_CONNECTION
from tests.support.push_api import push_objects, push_request, upload_count
from tests.support.push_material import YEAR, android, cert_pem, ios, key, pem_of, secrets_in, service_account
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, pem, token

POLICY = f"""
[[issuers]]
issuer = "{ISSUER}"
audiences = ["dialtone"]
pem = '''{pem()}'''
[[policy.rules]]
name = "operators"
claims.sub = "root"
admin = true
[[policy.rules]]
name = "all"
push_scopes = ["push:register"]
"""
Renew = Callable[..., Awaitable[Result]]


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "dialtone.toml").write_text(POLICY)
    config = str(tmp_path / "dialtone.toml")
    async with running_service(telnyx, sqlite, config=config, issuer=..., audience=..., issuer_pem=...) as service:
        yield service


@pytest.fixture
def renew(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renew:
    """`dialtone push renew` in a folder with new.pem and a token, with no settings but the address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIALTONE_URL", service.url)
    monkeypatch.setenv("DIALTONE_TOKEN_FILE", "token")
    write_token(tmp_path)
    write_material(tmp_path, "new.pem", until=service.clock() + YEAR, serial=2)

    async def run(*arguments: str, text: str | None = None) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["push", "renew", *arguments], input=text)

    return run


def write_token(folder: Path, scope: str = "phone push:register") -> None:
    (folder / "token").write_text(token(scope=scope) + "\n")


def write_material(folder: Path, name: str, **shape: Any) -> None:
    (folder / name).write_text(cert_pem(**shape) + pem_of(key()))


async def registered(service: Service, body: dict[str, Any] | None = None, *, is_attached: bool = True) -> str:
    """The ID of a registration, which the connection uses."""
    until = service.clock() + timedelta(days=20)
    headers = {"Authorization": f"Bearer {token(scope='phone push:register')}"}
    made = await service.client.post("/v1/push-credentials", headers=headers, json=body or ios(until=until))
    credential_id = str(made.json()["id"])
    if is_attached:
        admin = {"Authorization": f"Bearer {token('root', scope='dialtone:admin')}"}
        path = f"/v1/admin/connections/{DEMO_CONNECTION}/push-credentials"
        kind = made.json()["type"]
        assert (await service.client.put(path, headers=admin, json={kind: credential_id})).status_code == 200
    return credential_id


async def shown(service: Service, credential_id: str) -> dict[str, Any]:
    answer = await push_request(service, "GET", f"/{credential_id}", scope="phone push:register")
    return dict(answer.json())


async def test_renewed_certificate_is_registered_and_attached(service: Service, renew: Renew) -> None:
    credential_id = await registered(service)
    before = await shown(service, credential_id)

    said = await renew(credential_id, "new.pem")

    after = await shown(service, credential_id)
    assert said.exit_code == 0, said.output
    assert "Renewed: ios push credential of com.example.softphone" in said.output
    assert "in 36" in said.output
    assert (after["alias"], after["attached"]) == (before["alias"], True)
    assert after["fingerprint_sha256"] != before["fingerprint_sha256"]


async def test_renewal_can_be_repeated(service: Service, renew: Renew) -> None:
    credential_id = await registered(service)

    said = [await renew(credential_id, "new.pem", "--json") for _ in range(2)]

    assert [result.exit_code for result in said] == [0, 0]
    assert json.loads(said[0].stdout) == json.loads(said[1].stdout)
    assert upload_count(service.telnyx) == 2


async def test_renewal_that_an_operator_must_complete_exits_with_3(service: Service, renew: Renew) -> None:
    credential_id = await registered(service, is_attached=False)

    said = await renew(credential_id, "new.pem")

    assert said.exit_code == 3
    assert "No connection uses it" in said.output
    assert f"dialtone push attach CONNECTION --ios {credential_id}" in said.output
    assert (await renew(credential_id, "new.pem")).exit_code == 3


async def test_service_account_is_renewed(service: Service, renew: Renew, tmp_path: Path) -> None:
    credential_id = await registered(service, android())
    (tmp_path / "new.json").write_text(json.dumps(service_account(private_key=pem_of(key("google-2"), pkcs8=True))))

    assert (await renew(credential_id, "new.json")).exit_code == 0
    assert (await shown(service, credential_id))["attached"] is True


async def test_token_is_read_from_standard_input(
    service: Service, renew: Renew, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential_id = await registered(service)
    monkeypatch.setenv("DIALTONE_TOKEN_FILE", "-")

    assert (await renew(credential_id, "new.pem", text=token(scope="push:register"))).exit_code == 0
    both = await renew(credential_id, "new.pem", "--password-file", "-", text="x")

    assert both.exit_code == 2
    assert "Standard input cannot be both" in both.output


# -- rejected before anything is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "message"),
    [(-1, "certificate_expired"), (29, "expires in 29 days, and --min-days is 30")],
    ids=["expired", "expires soon"],
)
async def test_expired_or_expiring_certificate_is_not_sent(
    service: Service, renew: Renew, tmp_path: Path, days: int, message: str
) -> None:
    credential_id = await registered(service)
    now = service.clock()
    write_material(tmp_path, "new.pem", since=now - YEAR, until=now + timedelta(days=days, hours=1), serial=3)

    said = await renew(credential_id, "new.pem")

    assert said.exit_code == 1
    assert message in said.output
    assert upload_count(service.telnyx) == 1


async def test_certificate_that_expires_before_the_registered_one_is_not_sent(
    service: Service, renew: Renew, tmp_path: Path
) -> None:
    credential_id = await registered(service, ios(until=service.clock() + YEAR))
    write_material(tmp_path, "new.pem", until=service.clock() + timedelta(days=100), serial=3)

    said = await renew(credential_id, "new.pem")

    assert said.exit_code == 1
    assert "expires before the registered one" in said.output
    assert upload_count(service.telnyx) == 1


async def test_material_of_another_app_is_not_sent(service: Service, renew: Renew, tmp_path: Path) -> None:
    credential_id = await registered(service)
    write_material(tmp_path, "new.pem", uid="com.example.other.voip", serial=3)
    (tmp_path / "new.json").write_text(json.dumps(service_account()))

    other_app = await renew(credential_id, "new.pem")
    other_type = await renew(credential_id, "new.json")

    assert (other_app.exit_code, other_type.exit_code) == (1, 1)
    assert "com.example.other" in other_app.output
    assert "android app softphone-1234" in other_type.output
    assert upload_count(service.telnyx) == 1


# -- refused by the service -----------------------------------------------------------------------------------------


async def test_token_without_the_push_scope_is_explained(service: Service, renew: Renew, tmp_path: Path) -> None:
    credential_id = await registered(service)
    write_token(tmp_path, scope="phone")

    said = await renew(credential_id, "new.pem")

    assert said.exit_code == 1
    assert "insufficient_scope" in said.output
    assert "push_scopes" in said.output
    assert "dialtone:admin" not in said.output


async def test_unknown_id_fails_with_its_code(renew: Renew) -> None:
    said = await renew("0" * 32, "new.pem")

    assert said.exit_code == 1
    assert said.output == (
        "The token's user has no push credential with this ID. GET /v1/push-credentials with this token lists those of "
        "the user (push_credential_not_found).\n"
    )


async def test_id_may_be_written_in_capital_letters(service: Service, renew: Renew) -> None:
    assert (await renew((await registered(service)).upper(), "new.pem")).exit_code == 0


@pytest.mark.parametrize("credential_id", ["x/../../admin", "", "0" * 31, "?a"])
async def test_malformed_id_is_a_usage_error(renew: Renew, credential_id: str) -> None:
    assert (await renew(credential_id, "new.pem")).exit_code == 2


async def test_renewal_without_an_address_or_token_is_a_usage_error(
    renew: Renew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIALTONE_TOKEN_FILE")
    no_token = await renew("0" * 32, "new.pem")
    monkeypatch.delenv("DIALTONE_URL")
    no_address = await renew("0" * 32, "new.pem")

    assert (no_token.exit_code, no_address.exit_code) == (2, 2)
    assert "DIALTONE_TOKEN_FILE" in no_token.output
    assert "DIALTONE_URL" in no_address.output


async def test_failed_upload_keeps_the_old_certificate(service: Service, renew: Renew) -> None:
    credential_id = await registered(service)
    before = await shown(service, credential_id)
    service.telnyx.fail("status", method="POST", path="mobile_push_credentials", status=422)

    said = await renew(credential_id, "new.pem")

    assert said.exit_code == 1
    assert "telnyx_rejected" in said.output
    assert await shown(service, credential_id) == before
    assert len(push_objects(service.telnyx)) == 1


async def test_renewal_prints_no_secret(service: Service, renew: Renew, tmp_path: Path) -> None:
    credential_id = await registered(service)
    secrets = [*secrets_in(ios()), (tmp_path / "token").read_text().strip()]

    said = [await renew(credential_id, "new.pem"), await renew(credential_id, "new.pem", "--json")]
    write_token(tmp_path, scope="phone")
    said.append(await renew(credential_id, "new.pem"))

    assert not [secret for result in said for secret in secrets if secret in result.output]
