"""Floors: minimal apps on uvicorn, Starlette and FastAPI. No request can be answered faster than by these."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

HELLO = b'{"message":"hello"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(HELLO))]


async def live(receive: Receive, send: Send) -> None:
    """A lifespan without startup and shutdown work."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Only uvicorn."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def _hello(_: Request) -> Response:
    return JSONResponse({"message": "hello"})


starlette = Starlette(routes=[Route("/", _hello, methods=["GET", "POST"])])


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
