"""A typical implementation: FastAPI, python-jose on each request, a new httpx client and two Telnyx calls each time."""

import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel

PEM = os.environ["DIALTONE_ISSUER_PEM"]
AUDIENCE = os.environ["DIALTONE_AUDIENCE"]
TELNYX = os.environ["TELNYX_BASE_URL"]
CONNECTION = os.environ["TELNYX_CONNECTION_ID"]
HEADERS = {"Authorization": f"Bearer {os.environ['TELNYX_API_KEY']}"}

app = FastAPI()
bearer = HTTPBearer()


class Device(BaseModel):
    device_id: str


class Login(BaseModel):
    login_token: str
    sip_username: str


def user_of(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    try:
        return str(jwt.decode(credentials.credentials, PEM, algorithms=["RS256"], audience=AUDIENCE)["sub"])
    except JWTError:
        raise HTTPException(401, "Invalid token") from None


@app.post("/v1/telephony-credentials")
async def login(device: Device, user: Annotated[str, Depends(user_of)]) -> Login:
    async with httpx.AsyncClient(headers=HEADERS) as client:
        wanted = {"connection_id": CONNECTION, "name": f"{user}-{device.device_id}"}
        made = (await client.post(f"{TELNYX}/telephony_credentials", json=wanted)).raise_for_status().json()["data"]
        token = (await client.post(f"{TELNYX}/telephony_credentials/{made['id']}/token")).raise_for_status()
    return Login(login_token=token.text, sip_username=made["sip_username"])
