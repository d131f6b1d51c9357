"""OIDC Back-Channel Logout 1.0: the identity provider reports the end of one session or of all sessions of a user."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response

from app.api.dependencies import ComponentsDep
from app.api.middleware.body import FORM
from app.api.openapi_responses import UNGUARDED, problems_of
from app.api.request_scope import BACKCHANNEL_LOGOUT, KEY_PENDING
from app.vending.errors import LogoutTokenRejected, SigningKeyPending

router = APIRouter(tags=["Identity provider"])

MAX_FORM_FIELDS = 20

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
    summary="Receive a back-channel logout",
    responses={
        200: {"description": "The devices are logged out; earlier tokens are rejected."},
        **problems_of("invalid_logout_token", common=UNGUARDED),
    },
    response_class=Response,
    openapi_extra=FORM_BODY,
)
async def receive_backchannel_logout(request: Request, components: ComponentsDep) -> Response:
    """Register this URL as the client's `backchannel_logout_uri`. The logout token in the form proves the caller."""
    try:
        logout = await components.identity.verifier.verify_logout(_logout_token(await request.body()))
    except SigningKeyPending:
        request.scope[KEY_PENDING] = True
        raise
    await components.telephony.revoker.log_out(logout)
    return Response(status_code=200)


def _logout_token(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=MAX_FORM_FIELDS)
        (unverified_token,) = fields["logout_token"]
    except (ValueError, KeyError):
        raise LogoutTokenRejected("malformed_request") from None
    return unverified_token
