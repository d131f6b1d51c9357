"""The careful peer: a FastAPI route that creates a credential and mints a token for each request.

It has a shared client on aiohttp's pool, and verifies each token once. It has no ledger.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from httpx_aiohttp import AiohttpTransport
from jose import JWTError, jwt
from pydantic import BaseModel

PEM = os.environ["DIALTONE_ISSUER_PEM"]
AUDIENCE = os.environ["DIALTONE_AUDIENCE"]
TELNYX = os.environ["TELNYX_BASE_URL"]
CONNECTION = os.environ["TELNYX_CONNECTION_ID"]
HEADERS = {"Authorization": f"Bearer {os.environ['TELNYX_API_KEY']}"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(headers=HEADERS, transport=AiohttpTransport()) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer()
users: dict[str, str] = {}


class Device(BaseModel):
    device_id: str


class Login(BaseModel):
    login_token: str
    sip_username: str


async def user_of(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    token = credentials.credentials
    if token not in users:
        try:
            users[token] = str(jwt.decode(token, PEM, algorithms=["RS256"], audience=AUDIENCE)["sub"])
        except JWTError:
            raise HTTPException(401, "Invalid token") from None
    return users[token]


@app.post("/v1/telephony-credentials")
async def login(request: Request, device: Device, user: Annotated[str, Depends(user_of)]) -> Login:
    client: httpx.AsyncClient = request.app.state.client
    wanted = {"connection_id": CONNECTION, "name": f"{user}-{device.device_id}"}
    made = (await client.post(f"{TELNYX}/telephony_credentials", json=wanted)).raise_for_status().json()["data"]
    token = (await client.post(f"{TELNYX}/telephony_credentials/{made['id']}/token")).raise_for_status()
    return Login(login_token=token.text, sip_username=made["sip_username"])
