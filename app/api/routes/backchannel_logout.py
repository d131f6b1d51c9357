"""OIDC Back-Channel Logout 1.0: the identity provider itself tells us that a session, or all of a user's, has ended."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response

from app.api.dependencies import ComponentsDep
from app.api.middleware.body import FORM
from app.api.openapi import problems_of
from app.api.scope import BACKCHANNEL_LOGOUT
from app.vending.errors import LogoutRefused

router = APIRouter(tags=["Identity provider"])

MOST_FIELDS = 20

FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["logout_token"],
                    "properties": {"logout_token": {"type": "string", "description": "The signed logout token."}},
                }
            }
        },
    }
}


@router.post(
    BACKCHANNEL_LOGOUT,
    summary="A session has ended at the identity provider",
    responses={
        200: {"description": "Devices are logged out, earlier tokens are refused.", "content": None},
        **problems_of("invalid_logout_token", "ledger_unavailable", guarded=False),
    },
    response_class=Response,
    openapi_extra=FORM_BODY,
)
async def log_out(request: Request, components: ComponentsDep) -> Response:
    """Register this address as the client's `backchannel_logout_uri`. The logout token is all the proof there is."""
    logout = await components.identity.verifier.verify_logout(_logout_token(await request.body()))
    await components.telephony.revoker.log_out(logout)
    return Response(status_code=200)


def _logout_token(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=MOST_FIELDS)
        (unverified_token,) = fields["logout_token"]
    except (ValueError, KeyError):
        raise LogoutRefused("malformed_request") from None
    return unverified_token
