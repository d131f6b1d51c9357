"""`GET /sip_registration_status` of the sandbox: whether a device is registered with the signalling server.

As in Telnyx's reference, the response has no `data` envelope. Telnyx does not document the statuses of its errors here;
the sandbox answers 400 for a missing or unsupported parameter, and 404 for an unknown SIP username.
"""

from collections.abc import Mapping
from typing import Any

from app.sandbox.account import Account, ApiError, not_found
from app.sandbox.signalling import SignallingServer

EXPIRES_SECONDS = 3600
"""The lifetime of a registration for which the device requested none."""


def credential_registration(account: Account, exchange: SignallingServer, query: Mapping[str, str]) -> dict[str, Any]:
    """The status of the SIP username in the query. Raises ApiError."""
    if query.get("credential_type") != "telephony_credential":
        raise ApiError(400, "10015", "Bad Request", "is not supported", parameter="credential_type")
    username = query.get("username")
    if not username:
        raise ApiError(400, "10004", "Missing required parameter", "username is required", parameter="username")
    credential = next((item for item in account.credentials.values() if item.sip_username == username), None)
    if credential is None:
        raise not_found()
    session = exchange.registration(username)
    status = {
        "credential_type": "telephony_credential",
        "credential_username": username,
        "connection_id": credential.connection_id,
        "connection_name": account.connections.get(credential.connection_id, {}).get("connection_name"),
        "registered": session is not None,
        "sip_registration_status": "unknown" if session is None else "registered",
    }
    if session is None or session.registered_at is None:
        return status | {"sip_registration_details": None, "last_registration_response": None}
    client = session.socket.client
    details = {
        "ua_ip": client.host if client else None,
        "ua_port": client.port if client else None,
        "transport": "WSS",
        "last_modified": session.registered_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires": EXPIRES_SECONDS,
    }
    return status | {"sip_registration_details": details, "last_registration_response": "200 OK"}
