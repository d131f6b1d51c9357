"""A service whose policy has rules for grants, and backends that mint them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.adapters.ledger.tables import grants
from app.sandbox.account import DEMO_CONNECTION
from tests.support.admin_api import admin_request, current_token
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import AUDIENCE, ISSUER, pem

SCOPE = "dialtone:grants"

RULES = f"""
[[policy.rules]]
name = "shop"
claims.sub = "shop"
vouches_for = ["user", "guest"]

[[policy.rules]]
name = "other-shop"
claims.sub = "other-shop"
vouches_for = ["user", "guest"]

[[policy.rules]]
name = "operators"
claims.sub = "olga"
admin = true

[[policy.rules]]
name = "all-users"

[[policy.rules]]
name = "session-users"
issuers = ["dialtone:users"]

[[policy.rules]]
name = "guests"
issuers = ["dialtone:guests"]
connection_id = "{DEMO_CONNECTION}"
ttl_seconds.browser = 3600
"""


@cache
def grant_key(name: str = "first") -> str:
    """A P-256 private key in PEM."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )


@cache
def ed25519_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write_config(folder: Path, rules: str = RULES) -> str:
    """A dialtone.toml with the test issuer and these rules. Returns its path."""
    (folder / "key.pem").write_text(pem())
    issuer = f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\npem_file = "{folder / "key.pem"}"\n'
    (folder / "dialtone.toml").write_text(issuer + rules)
    return str(folder / "dialtone.toml")


def from_file(path: str) -> dict[str, Any]:
    """The settings that replace the single issuer of tests by this dialtone.toml."""
    return {"issuer": None, "audience": frozenset(), "issuer_pem": None, "config": path}


@asynccontextmanager
async def granting_service(
    telnyx: Telnyx, database: str, folder: Path, rules: str = RULES, **changes: Any
) -> AsyncIterator[Service]:
    own = from_file(write_config(folder, rules))
    async with running_service(telnyx, database, **({"grant_key": grant_key()} | own | changes)) as service:
        yield service


async def mint(service: Service, *, backend: str = "shop", **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {current_token(service, backend, scope=SCOPE)}"}
    return await service.client.post("/v1/grants", headers=headers, json={"kind": "user", "subject": "erin"} | body)


async def minted(service: Service, **body: Any) -> dict[str, Any]:
    answer = await mint(service, **body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def minted_for_guest(service: Service, **body: Any) -> dict[str, Any]:
    return await minted(service, kind="guest", subject=None, **body)


async def use(service: Service, grant: dict[str, Any], device: str = "tab-1", **headers: str) -> httpx.Response:
    """Request a login with the grant."""
    return await call(service, grant, "POST", json={"device_id": device}, headers=headers)


async def call(
    service: Service, grant: dict[str, Any], method: str, path: str = "/v1/telephony-credentials", **content: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {grant['token']}"} | content.pop("headers", {})
    return await service.client.request(method, path, headers=headers, **content)


async def grant_rows(service: Service) -> list[sa.RowMapping]:
    return await service.components.ledger.database.rows(sa.select(grants))


async def revoke_grants(service: Service, **body: Any) -> dict[str, Any]:
    """Revoke grants as an operator."""
    found: dict[str, Any] = (await admin_request(service, "POST", "/grant-revocations", body)).json()
    return found


async def audit_events(service: Service, count: int = 1, **criteria: str) -> list[dict[str, Any]]:
    """The audit events, once there are `count`."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        found: list[dict[str, Any]] = (await admin_request(service, "GET", "/audit", **criteria)).json()["data"]
        if len(found) >= count or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(0.05)
