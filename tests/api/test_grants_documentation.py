"""The backend in docs/grants.md signs tokens that Dialtone accepts, and mints grants with them."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from app.sandbox.account import DEMO_CONNECTION
from tests.support.grants import call, granting_service
from tests.support.sandbox import Telnyx
from tests.support.service import Service

PAGE = (Path(__file__).parent.parent.parent / "docs" / "grants.md").read_text()
APP = "https://app.example.com"
SECRET = "c2VjcmV0IG9mIHRoZSBiYWNrZW5kIGluIHRoZSB0ZXN0IGZvciBncmFudHM="


def blocks(language: str) -> list[str]:
    """The code of the page, without the indentation of lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@pytest.fixture
async def service(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    """A service with the issuer and the rules of the page."""
    monkeypatch.setenv("BACKEND_SECRET", SECRET)
    rules = "\n".join(blocks("toml")).replace("1293384261075731500", DEMO_CONNECTION)
    async with granting_service(telnyx, sqlite, tmp_path, rules) as service:
        yield service


@pytest.fixture
def backend(service: Service) -> FastAPI:
    """The backend of the page. Its user is always customer-4711."""
    app = FastAPI()
    user = Annotated[Any, Depends(lambda: SimpleNamespace(id="customer-4711"))]
    names: dict[str, Any] = {"app": app, "SignedInUser": user, "http": PhonesClient(service)}
    for program in blocks("python"):
        exec(compile(program, "docs/grants.md", "exec"), names)  # noqa: S102 - the programs of the page
    return app


class PhonesClient:
    """Sends requests for the address in the page to the service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def post(self, url: str, **content: Any) -> httpx.Response:
        return await self._service.client.post(url.removeprefix("https://phones.example.com"), **content)


async def test_backend_with_its_own_tokens_gets_grants_for_its_user(service: Service, backend: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(backend), base_url=APP) as page:
        grant = (await page.post("/phone-grant")).json()

    answer = await call(service, grant, "POST", json={"device_id": "tab-1"}, headers={"Origin": APP})
    assert sorted(grant) == ["expires_at", "token"]
    assert answer.status_code == 201, answer.text
