"""The endpoints of OAuth 2.0 and OpenID Connect: authorization, tokens, userinfo and sign-out.

Any `client_id` is accepted, and no secret is checked. Redirects go to this machine only.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.openid.grants import AuthorizationGrant, Grants, invalid_grant
from app.sandbox.openid.pages import error_page, sign_in_page, signed_out_page
from app.sandbox.openid.requests import (
    AuthorizationError,
    AuthorizationRequest,
    InvalidTarget,
    Target,
    grouped,
    is_loopback_url,
    read_authorization_request,
    read_form,
    read_target,
    read_token_request,
    required,
    with_parameters,
)
from app.sandbox.openid.tokens import TOKEN_SECONDS, Clock, TokenIssuer, TokenRequestError

SESSION_COOKIE = "sandbox_identity_session"
NO_STORE = {"Cache-Control": "no-store"}


class OpenIdEndpoints:
    """Signs demo users in to applications, and remembers browsers by a cookie."""

    def __init__(
        self,
        tokens: TokenIssuer,
        clock: Clock,
        *,
        access_token_seconds: int = TOKEN_SECONDS,
        end_session: Callable[[str], Awaitable[object]],
    ) -> None:
        """`end_session` ends the session of a user, and informs the service."""
        self._tokens = tokens
        self._clock = clock
        self._access_token_seconds = access_token_seconds
        self._end_session = end_session
        self._grants = Grants(clock)
        self._browsers: dict[str, tuple[str, str]] = {}
        """User and session id by the value of the cookie."""
        self._access_tokens: dict[str, tuple[AuthorizationGrant, float]] = {}
        """AuthorizationGrant and expiry of each access token that was issued for a code or a refresh token."""
        self._id_tokens: dict[str, str] = {}
        """The user of each ID token."""

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/authorize", self.authorize, methods=["GET"]),
            Route("/userinfo", self.userinfo, methods=["GET", "POST"]),
            Route("/end_session", self.end_session, methods=["GET", "POST"]),
        ]

    async def authorize(self, request: Request) -> Response:
        """Redirect with a code, or show the sign-in page."""
        parameters = request.query_params.multi_items()
        try:
            target = read_target(grouped(parameters))
        except InvalidTarget as error:
            return error_page(str(error))
        try:
            wanted = read_authorization_request(grouped(parameters))
            user = self._silent_user(request, wanted) if wanted.is_silent else wanted.user
        except AuthorizationError as error:
            return _redirect(target.url(error=error.error, error_description=error.description))
        if user is None:
            return sign_in_page(
                client_id=target.client_id,
                scopes=wanted.scopes,
                parameters=[(name, value) for name, value in parameters if name != "login_hint"],
                cancel_url=target.url(error="access_denied", error_description="The user cancelled the sign-in."),
            )
        session = self._tokens.session(user) if wanted.is_silent else self._tokens.sign_in(user)
        answer = _redirect(target.url(code=self._grants.add(self._grant(target, wanted, user, session.id))))
        if not wanted.is_silent:
            cookie = secrets.token_urlsafe(32)
            self._browsers[cookie] = (user, session.id)
            answer.set_cookie(SESSION_COOKIE, cookie, httponly=True, samesite="lax")
        return answer

    async def token(self, request: Request) -> Response:
        """Redeem a code or a refresh token."""
        try:
            form = await read_token_request(request)
            match form.get("grant_type"):
                case None:
                    required(form, "grant_type")
                case "authorization_code":
                    return self._redeem_code(form)
                case "refresh_token":
                    return self._refresh(form)
            raise TokenRequestError(error="unsupported_grant_type")
        except TokenRequestError as error:
            status = 401 if error.body["error"] == "invalid_client" else 400
            return JSONResponse(error.body, status, NO_STORE)

    async def userinfo(self, request: Request) -> Response:
        """The profile of the user of an access token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        grant, expires_at = self._access_tokens.get(token, (None, 0.0))
        if grant is None or self._clock() >= expires_at or not self._is_active(grant):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return JSONResponse(self._tokens.profile(grant.user), headers=NO_STORE)

    async def end_session(self, request: Request) -> Response:
        """Sign the user of `id_token_hint`, or else of the cookie, out (OpenID Connect RP-Initiated Logout)."""
        try:
            form = read_form(request.url.query.encode() if request.method == "GET" else await request.body())
        except TokenRequestError as error:
            return error_page(error.body["error_description"])
        back = form.get("post_logout_redirect_uri")
        if back is not None and not is_loopback_url(back):
            return error_page("post_logout_redirect_uri must be a URL on this machine.")
        of_cookie = self._signed_in_user(request)
        user = self._id_tokens.get(form.get("id_token_hint", "")) or of_cookie
        if user is not None:
            await self._end_session(user)
        state = {"state": form["state"]} if "state" in form else {}
        answer = signed_out_page() if back is None else _redirect(with_parameters(back, state))
        if of_cookie in (None, user):  # another user may be signed in in another tab
            answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="lax")
        return answer

    def _signed_in_user(self, request: Request) -> str | None:
        """The user of the browser, unless the session has ended."""
        user, session_id = self._browsers.get(request.cookies.get(SESSION_COOKIE, ""), ("", ""))
        return user if self._tokens.has_session(user, session_id) else None

    def _silent_user(self, request: Request, wanted: AuthorizationRequest) -> str:
        """The user that a request without a page signs in. Raises AuthorizationError."""
        user = self._signed_in_user(request)
        if user is None or wanted.user not in (None, user):
            raise AuthorizationError("login_required", "The user is not signed in.")
        if wanted.max_age is not None and self._clock() - self._tokens.session(user).auth_time > wanted.max_age:
            raise AuthorizationError("login_required", "The user signed in longer than max_age ago.")
        return user

    def _grant(self, target: Target, wanted: AuthorizationRequest, user: str, session_id: str) -> AuthorizationGrant:
        return AuthorizationGrant(
            user=user,
            client_id=target.client_id,
            redirect_uri=target.redirect_uri,
            code_challenge=wanted.code_challenge,
            scopes=self._tokens.granted_scopes(user, wanted.scopes),
            session_id=session_id,
            nonce=wanted.nonce,
        )

    def _redeem_code(self, form: dict[str, str]) -> Response:
        code, client_id, redirect_uri, verifier = required(form, "code", "client_id", "redirect_uri", "code_verifier")
        grant = self._grants.redeem_code(code, client_id=client_id, redirect_uri=redirect_uri, code_verifier=verifier)
        return self._answer(grant, grant.scopes, grant.nonce)

    def _refresh(self, form: dict[str, str]) -> Response:
        token, client_id = required(form, "refresh_token", "client_id")
        grant = self._grants.redeem_refresh_token(token, client_id=client_id)
        scopes = form["scope"].split() if "scope" in form else grant.scopes
        if not set(scopes) <= set(grant.scopes):
            raise TokenRequestError(error="invalid_scope", error_description="The user has not granted this scope.")
        return self._answer(grant, scopes, None)

    def _answer(self, grant: AuthorizationGrant, scopes: list[str], nonce: str | None) -> Response:
        """The response of the token endpoint. Raises TokenRequestError."""
        if not self._is_active(grant):
            raise invalid_grant("The session of the user has ended.")
        access_token = self._tokens.access_token(grant.user, scopes, self._access_token_seconds)
        body: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self._access_token_seconds,
            "refresh_token": self._grants.new_refresh_token(grant),
            "scope": " ".join(scopes),
        }
        self._access_tokens[access_token] = (grant, self._clock() + self._access_token_seconds)
        if "openid" in scopes:
            body["id_token"] = self._tokens.id_token(grant.user, grant.client_id, nonce)
            self._id_tokens[body["id_token"]] = grant.user
        return JSONResponse(body, headers=NO_STORE)

    def _is_active(self, grant: AuthorizationGrant) -> bool:
        """Whether the session in which the user gave the grant has not ended."""
        return self._tokens.has_session(grant.user, grant.session_id)


def _redirect(url: str) -> Response:
    return RedirectResponse(url, 303, {**NO_STORE, "Referrer-Policy": "no-referrer"})
