"""The floor: a minimal FastAPI app. Dialtone's app cannot answer faster than its empty route."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.types import Receive, Send


async def live(receive: Receive, send: Send) -> None:
    """A lifespan without startup and shutdown work."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


class Hello(BaseModel):
    """The first example of FastAPI's documentation, with a response model."""

    message: str


fastapi = FastAPI()


@fastapi.get("/")
async def hello() -> Hello:
    return Hello(message="hello")


_bearer = HTTPBearer()


async def _refuse(_: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> None:
    raise HTTPException(401, "invalid token", {"WWW-Authenticate": "Bearer"})


@fastapi.post("/refused", dependencies=[Depends(_refuse)])
async def refused() -> Hello:
    """FastAPI's own 401, without reading the token."""
    return Hello(message="never")
