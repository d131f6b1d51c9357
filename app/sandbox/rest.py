"""The REST API of the sandbox: Telnyx's paths, statuses, paging and error bodies for an `Account`; and its controls.

`/v2/...` is Telnyx's API. `/sandbox/...` controls the sandbox: faults, the journal, the clock.
"""

import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.sandbox.account import Account, ApiError, Clock
from app.sandbox.billing import Billing
from app.sandbox.faults import Fault, FaultMiddleware
from app.sandbox.journal import Entry, Journal, masked
from app.sandbox.registrations import credential_registration
from app.sandbox.signalling import SignallingServer

MAX_PAGE_SIZE = 250

Endpoint = Callable[[Request], Awaitable[Response]]


class SandboxRateLimit:
    """Requests per second, in fixed windows, as reported by the `x-ratelimit-*` headers."""

    def __init__(self, requests_a_second: int) -> None:
        self.limit = requests_a_second
        self._window = 0
        self._used = 0

    def count(self) -> tuple[bool, dict[str, str]]:
        """Count a request. Returns whether the limit allows it, and the headers of its response."""
        now = time.time()
        if int(now) != self._window:
            self._window, self._used = int(now), 0
        self._used += 1
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self._used)),
            "x-ratelimit-reset": str(math.ceil(self._window + 1 - now)),
        }
        return self._used <= self.limit, headers


class TelnyxSandbox:
    """The sandbox as an ASGI app. WebSockets go to signalling; HTTP requests to journal, faults and Telnyx's API."""

    def __init__(
        self,
        account: Account,
        clock: Clock,
        *,
        requests_a_second: int = 10_000,
        propagation: timedelta = timedelta(),
        drops_deleted: bool = True,
    ) -> None:
        self.account = account
        self.clock = clock
        self.billing = Billing()
        self.journal = Journal()
        self.exchange = SignallingServer(account, clock, propagation=propagation, drops_deleted=drops_deleted)
        limit = SandboxRateLimit(requests_a_second)
        self.faults = FaultMiddleware(Starlette(routes=_telnyx_routes(account, self.billing, self.exchange, limit)))
        self._controls = Starlette(routes=_control_routes(self))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.exchange.serve(WebSocket(scope, receive, send))
            return
        if scope["type"] != "http" or scope["path"].startswith("/sandbox"):
            await self._controls(scope, receive, send)
            return
        entry = self.journal.open(scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
        scope["sandbox.entry"] = entry

        async def noting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                entry.status = message["status"]

        await self.faults(scope, receive, noting)


def _telnyx_routes(
    account: Account, billing: Billing, exchange: SignallingServer, limit: SandboxRateLimit
) -> list[Route]:
    def route(path: str, method: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            may_pass, headers = limit.count()
            try:
                _check_key(request, account.api_keys)
                if not may_pass:
                    raise ApiError(429, "10011", "Too many requests")
                response = await endpoint(request)
            except ApiError as refusal:
                response = JSONResponse(refusal.body, refusal.status)
            except ClientDisconnect:
                response = Response(status_code=400)
            response.headers.update(headers)
            return response

        return Route("/v2" + path, guarded, methods=[method])

    async def list_credentials(request: Request) -> Response:
        return _page(request, account.find_credentials(_filters(request)), default_size=50)

    async def create_credential(request: Request) -> Response:
        made = account.create_credential(await _body(request))
        _entry(request).committed = f"create {made['id']}"
        return JSONResponse({"data": made}, 201)

    async def show_credential(request: Request) -> Response:
        return JSONResponse({"data": account.show_credential(request.path_params["id"])})

    async def update_credential(request: Request) -> Response:
        changed = account.update_credential(request.path_params["id"], await _body(request))
        _entry(request).committed = f"update {changed['id']}"
        return JSONResponse({"data": changed})

    async def delete_credential(request: Request) -> Response:
        removed = account.delete_credential(request.path_params["id"])
        _entry(request).committed = f"delete {removed['id']}"
        return JSONResponse({"data": removed})

    async def mint_token(request: Request) -> Response:
        token = account.mint_token(request.path_params["id"])
        _entry(request).committed = f"token {request.path_params['id']}"
        return PlainTextResponse(token, 201)

    async def list_push(request: Request) -> Response:
        return _page(request, account.find_push_credentials(_filters(request)), default_size=20)

    async def create_push(request: Request) -> Response:
        made = account.create_push_credential(await _body(request))
        _entry(request).committed = f"create {made['id']}"
        return JSONResponse({"data": made}, 200)

    async def show_push(request: Request) -> Response:
        return JSONResponse({"data": account.push_credential(request.path_params["id"])})

    async def delete_push(request: Request) -> Response:
        account.delete_push_credential(request.path_params["id"])
        _entry(request).committed = f"delete {request.path_params['id']}"
        return Response(status_code=204)

    async def list_connections(request: Request) -> Response:
        return _page(request, account.find_connections(_filters(request)), default_size=250)

    async def create_connection(request: Request) -> Response:
        made = account.create_connection(await _body(request))
        _entry(request).committed = f"create {made['id']}"
        return JSONResponse({"data": made}, 201)

    async def show_connection(request: Request) -> Response:
        connection = account.connection(request.path_params["id"])
        return JSONResponse({"data": account.shown_connection(connection)})

    async def update_connection(request: Request) -> Response:
        changed = account.update_connection(request.path_params["id"], await _body(request))
        _entry(request).committed = f"update {changed['id']}"
        return JSONResponse({"data": changed})

    async def delete_connection(request: Request) -> Response:
        return JSONResponse({"data": account.delete_connection(request.path_params["id"])})

    async def registration_status(request: Request) -> Response:
        connection = account.connection(request.path_params["id"])
        status = {
            "record_type": "registration_status",
            "status": "Not Registered",
            "sip_username": connection["user_name"],
        }
        return JSONResponse({"data": status})

    async def sip_registration_status(request: Request) -> Response:
        return JSONResponse(credential_registration(account, exchange, request.query_params))

    async def show_outbound_profile(request: Request) -> Response:
        return JSONResponse({"data": billing.outbound_profile(request.path_params["id"])})

    async def list_spend_limits(request: Request) -> Response:
        return _page(request, billing.spend_limits, default_size=20)

    credentials, push, connections = (
        "/telephony_credentials",
        "/mobile_push_credentials",
        "/credential_connections",
    )
    return [
        route(credentials, "GET", list_credentials),
        route(credentials, "POST", create_credential),
        route(credentials + "/{id}", "GET", show_credential),
        route(credentials + "/{id}", "PATCH", update_credential),
        route(credentials + "/{id}", "DELETE", delete_credential),
        route(credentials + "/{id}/token", "POST", mint_token),
        route(push, "GET", list_push),
        route(push, "POST", create_push),
        route(push + "/{id}", "GET", show_push),
        route(push + "/{id}", "DELETE", delete_push),
        route(connections, "GET", list_connections),
        route(connections, "POST", create_connection),
        route(connections + "/{id}", "GET", show_connection),
        route(connections + "/{id}", "PATCH", update_connection),
        route(connections + "/{id}", "DELETE", delete_connection),
        route(connections + "/{id}/actions/check_registration_status", "POST", registration_status),
        route("/sip_registration_status", "GET", sip_registration_status),
        route("/outbound_voice_profiles/{id}", "GET", show_outbound_profile),
        route("/spend_limits", "GET", list_spend_limits),
    ]


def _control_routes(sandbox: "TelnyxSandbox") -> list[Route]:
    account, clock, faults, journal = sandbox.account, sandbox.clock, sandbox.faults, sandbox.journal

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def add_fault(request: Request) -> Response:
        try:
            faults.plans.append(Fault.from_json(await request.json()))
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse([asdict(plan) for plan in faults.plans], 201)

    async def clear_faults(_: Request) -> Response:
        faults.plans.clear()
        return Response(status_code=204)

    async def show_journal(_: Request) -> Response:
        return JSONResponse(journal.as_json())

    async def clear_journal(_: Request) -> Response:
        journal.clear()
        return Response(status_code=204)

    async def live_credentials(_: Request) -> Response:
        """The credentials that exist and have not expired, without secrets."""
        now = clock()
        shown = ("id", "name", "resource_id", "sip_username", "expires_at")
        live = [c.as_json(now, "") | {"tag": c.tag} for c in account.credentials.values() if not c.is_expired(now)]
        return JSONResponse([{name: item[name] for name in (*shown, "tag")} for item in live])

    async def registrations(_: Request) -> Response:
        return JSONResponse(sandbox.exchange.registrations())

    async def set_outbound(request: Request) -> Response:
        connection = account.connections.get(request.path_params["id"])
        try:
            fields = await request.json()
        except ValueError:
            fields = ...
        if connection is None or not isinstance(fields, dict | None):
            return JSONResponse({"error": "the connection is unknown, or the body is neither an object nor null"}, 422)
        profile_id = None if fields is None else sandbox.billing.add_outbound_profile(**fields)
        connection["outbound"] = {**connection["outbound"], "outbound_voice_profile_id": profile_id}
        return JSONResponse(connection["outbound"])

    async def advance_clock(request: Request) -> Response:
        try:
            clock.advance(timedelta(seconds=float((await request.json())["advance_seconds"])))
        except (ValueError, TypeError, KeyError, OverflowError):
            return JSONResponse({"error": 'the body must be {"advance_seconds": NUMBER}'}, 422)
        return JSONResponse({"now": clock().isoformat()})

    return [
        Route("/sandbox/health", health, methods=["GET"]),
        Route("/sandbox/faults", add_fault, methods=["POST"]),
        Route("/sandbox/faults", clear_faults, methods=["DELETE"]),
        Route("/sandbox/journal", show_journal, methods=["GET"]),
        Route("/sandbox/journal", clear_journal, methods=["DELETE"]),
        Route("/sandbox/credentials", live_credentials, methods=["GET"]),
        Route("/sandbox/registrations", registrations, methods=["GET"]),
        Route("/sandbox/connections/{id}/outbound", set_outbound, methods=["PUT"]),
        Route("/sandbox/clock", advance_clock, methods=["POST"]),
    ]


def _entry(request: Request) -> Entry:
    entry: Entry = request.scope["sandbox.entry"]
    return entry


def _check_key(request: Request, api_keys: Sequence[str]) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not any(hmac.compare_digest(key.encode(), own.encode()) for own in api_keys):
        raise ApiError(
            401,
            "10009",
            "Authentication failed",
            "The required authentication headers were either invalid or not included.",
        )


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if raw and not request.headers.get("content-type", "").startswith("application/json"):
        raise ApiError(415, "10014", "Unsupported media type")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "10015", "Bad Request", "The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "10015", "Bad Request", "The request body is not an object")
    _entry(request).body = masked(body)
    return body


def _filters(request: Request) -> dict[str, str]:
    return {
        name.removeprefix("filter[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("filter[") and name.endswith("]")
    }


def _page(request: Request, items: list[dict[str, Any]], *, default_size: int) -> Response:
    number = _page_parameter(request, "page[number]", 1, 10**9)
    size = _page_parameter(request, "page[size]", default_size, MAX_PAGE_SIZE)
    meta = {
        "page_number": number,
        "page_size": size,
        "total_pages": math.ceil(len(items) / size),
        "total_results": len(items),
    }
    return JSONResponse({"data": items[(number - 1) * size : number * size], "meta": meta})


def _page_parameter(request: Request, name: str, default: int, largest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= largest:
        raise ApiError(400, "10015", "Bad Request", f"{name} must be between 1 and {largest}", parameter=name)
    return int(text)
