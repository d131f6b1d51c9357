"""The route class of /v1: it parses a JSON body strictly, and rejects repeated query parameters."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.api.request_faults import InvalidInput, json_fault, repeated_parameter, unknown_field
from app.vending import strict_json

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Ignored, as RFC 8259 section 8.1 permits: editors on Windows write it."""


class StrictRoute(APIRoute):
    """A route that rejects duplicate members, NaN, deep nesting and repeated parameters. Raises InvalidInput.

    DELETE of a whole collection accepts no parameter and no field: a `device_id` looks like a filter, and if it were
    ignored, every device would be logged out.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            _check_query(request)
            if takes_body and (body := await request.body()):
                request = _ParsedRequest(request, body)
            elif request.method == "DELETE" and not request.path_params:
                _check_has_no_filter(request, await request.body())
            return await handle(request)

        return handle_strictly


class _ParsedRequest(Request):
    """A request whose body has been parsed."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._whole = body
        self._value = _parsed(body)

    async def body(self) -> bytes:
        return self._whole

    async def json(self) -> Any:
        return self._value


def _parsed(body: bytes) -> Any:
    raw = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        return strict_json.parse(raw)
    except strict_json.InvalidJson as error:
        raise InvalidInput(json_fault(*(strict_json.locate(raw) or (error.fault, ())))) from None


def _check_query(request: Request) -> None:
    names: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in names:
            raise InvalidInput(repeated_parameter(name))
        names.add(name)


def _check_has_no_filter(request: Request, body: bytes) -> None:
    """Clients may send `{}` or `null` where no body is expected."""
    for name in request.query_params:
        raise InvalidInput(unknown_field("query", name))
    value = _parsed(body) if body else None
    for name in value if isinstance(value, dict) else ():
        raise InvalidInput(unknown_field("body", name))
