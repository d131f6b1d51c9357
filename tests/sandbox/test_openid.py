"""OAuth 2.0 and OpenID Connect at the sandbox's identity provider: sign-in, tokens, userinfo and sign-out."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from jose.jwt import get_unverified_claims
from joserfc import jwt
from joserfc.jwk import KeySet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.composition.issuers import open_verifier
from app.sandbox.identity_provider import create_identity_provider
from app.sandbox.openid.grants import CODE_SECONDS, code_challenge
from app.sandbox.providers import DEMO, PROVIDERS, simulate
from app.vending.errors import TokenRejected
from tests.support.configuration import load_file
from tests.support.http_server import DeferredApp, http_client, serve

CALLBACK = "http://127.0.0.1:8010/ops"
CLIENT = "softphone"


class Clock:
    """The provider's clock."""

    seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Browser:
    """A browser and an application at a provider on a socket."""

    base: str
    http: httpx.AsyncClient
    clock: Clock
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    async def discovery(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.http.get("/.well-known/openid-configuration")).json()
        return document

    async def authorize(self, **changes: str | None) -> httpx.Response:
        """The response to a valid authorization request of alice's, with changes. None removes a parameter."""
        parameters = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": CALLBACK,
            "scope": "openid profile",
            "state": "s1",
            "nonce": "n1",
            "code_challenge": code_challenge(self.verifier),
            "code_challenge_method": "S256",
            "login_hint": "alice",
        } | changes
        given = {name: value for name, value in parameters.items() if value is not None}
        return await self.http.get("/authorize", params=given)

    async def code(self, **changes: str | None) -> str:
        return parameters_of(await self.authorize(**changes))["code"]

    async def redeem(self, code: str, /, **changes: str | None) -> httpx.Response:
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": self.verifier}
        return await self.token({"grant_type": "authorization_code", **form, **changes})

    async def refresh(self, token: str, /, **changes: str | None) -> httpx.Response:
        return await self.token({"grant_type": "refresh_token", "refresh_token": token, **changes})

    async def token(self, form: dict[str, str | None]) -> httpx.Response:
        fields = {"client_id": CLIENT} | form
        return await self.http.post("/token", data={name: value for name, value in fields.items() if value is not None})

    async def sign_in(self, **changes: str | None) -> dict[str, Any]:
        """The response of the token endpoint."""
        answer = await self.redeem(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def userinfo(self, access_token: str) -> httpx.Response:
        return await self.http.get("/userinfo", headers={"Authorization": f"Bearer {access_token}"})


@asynccontextmanager
async def browser(provider: str = DEMO, backchannel_logout_uri: str | None = None) -> AsyncIterator[Browser]:
    identity, clock = DeferredApp(), Clock()
    async with serve(identity) as base, http_client(base) as http:
        identity.app = create_identity_provider(base, backchannel_logout_uri, provider, clock=clock)
        yield Browser(base, http, clock)


def parameters_of(answer: httpx.Response, target: str = CALLBACK) -> dict[str, str]:
    """The parameters of a redirect to the application."""
    assert answer.status_code == 303, answer.text
    location = urlsplit(answer.headers["location"])
    assert f"{location.scheme}://{location.netloc}{location.path}" == target
    return dict(parse_qsl(location.query))


# -- sign-in ----------------------------------------------------------------------------------------------------------


async def test_code_is_exchanged_for_tokens() -> None:
    async with browser() as alice:
        answer = parameters_of(await alice.authorize())
        response = await alice.redeem(answer["code"])
        body = response.json()

        assert answer["state"] == "s1"
        assert response.headers["cache-control"] == "no-store"
        assert body.keys() == {"access_token", "id_token", "refresh_token", "token_type", "expires_in", "scope"}
        assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)


async def test_id_token_is_verified_with_the_discovered_keys() -> None:
    async with browser() as alice:
        document = await alice.discovery()
        keys = KeySet.import_key_set((await alice.http.get(document["jwks_uri"])).json())
        token = jwt.decode((await alice.sign_in())["id_token"], keys)

        expected = {"iss": document["issuer"], "aud": CLIENT, "nonce": "n1", "sub": "alice", "name": "Alice"}
        expected |= {"email": "alice@example.com", "auth_time": 1_800_000_000}
        assert token.header["typ"] == "JWT"
        assert expected.items() <= token.claims.items()
        assert {
            "name": "Alice",
            "email": "alice@example.com",
            "auth_time": 1_800_000_000,
        }.items() <= token.claims.items()


async def test_discovered_endpoints_answer() -> None:
    async with browser() as alice:
        document = await alice.discovery()
        statuses = {
            name: (await alice.http.request("POST" if name == "token_endpoint" else "GET", document[name])).status_code
            for name in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "end_session_endpoint")
        }

        assert statuses == {
            "authorization_endpoint": 400,
            "token_endpoint": 400,
            "userinfo_endpoint": 401,
            "end_session_endpoint": 200,
        }
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert document["response_types_supported"] == ["code"]


@pytest.mark.parametrize("name", [name for name in PROVIDERS if simulate(name, "").discovery_path is not None])
async def test_access_token_is_accepted_and_id_token_rejected(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = DeferredApp()
    async with serve(identity) as base, http_client(base) as http:
        identity.app = create_identity_provider(base, provider=name)
        simulated = simulate(name, base)
        settings = load_file(monkeypatch, tmp_path, simulated.block(), **simulated.variables)
        body = await Browser(base, http, Clock()).sign_in()
        header = simulated.provider.header
        async with open_verifier(settings) as verifier:
            await verifier.verify(body["access_token"], header and header.lower())
            with pytest.raises(TokenRejected):
                await verifier.verify(body["id_token"], header and header.lower())


async def test_page_has_a_button_for_each_demo_user() -> None:
    async with browser() as alice:
        page = await alice.authorize(login_hint=None, state='"><script>alert(1)</script>')

        assert page.status_code == 200
        policy = page.headers["content-security-policy"].split("; ")
        assert [rule for rule in policy if not rule.startswith("style-src 'sha256-")] == [
            "default-src 'none'",
            "img-src data:",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
        assert "<script>" not in page.text
        assert [page.text.count(f'name="login_hint" value="{user}"') for user in ("alice", "bob", "carol")] == [1, 1, 1]


async def test_cancelled_sign_in_is_reported_to_the_application() -> None:
    async with browser() as alice:
        page = await alice.authorize(login_hint=None)
        cancel = unescape(page.text.partition('<a href="')[2].partition('"')[0])

        assert dict(parse_qsl(urlsplit(cancel).query)) == {
            "error": "access_denied",
            "error_description": "The user cancelled the sign-in.",
            "state": "s1",
        }


async def test_unknown_login_hint_shows_the_page() -> None:
    async with browser() as alice:
        assert (await alice.authorize(login_hint="mallory")).status_code == 200


async def test_login_hint_may_be_an_email_address() -> None:
    async with browser() as bob:
        body = await bob.sign_in(login_hint="bob@example.com")

        assert get_unverified_claims(body["id_token"])["sub"] == "bob"


async def test_request_without_openid_gets_no_id_token() -> None:
    async with browser() as alice:
        assert "id_token" not in await alice.sign_in(scope="phone")


# -- scopes -----------------------------------------------------------------------------------------------------------


async def test_requested_scope_reaches_the_access_token() -> None:
    async with browser() as alice:
        body = await alice.sign_in(scope="openid dialtone:admin")

        assert body["scope"] == get_unverified_claims(body["access_token"])["scope"] == "phone openid dialtone:admin"


async def test_only_operators_get_the_admin_scope() -> None:
    async with browser() as bob:
        body = await bob.sign_in(scope="openid dialtone:admin", login_hint="bob")

        assert body["scope"] == get_unverified_claims(body["access_token"])["scope"] == "phone openid"


async def test_refresh_may_request_fewer_scopes_but_not_more() -> None:
    async with browser() as alice:
        first = await alice.sign_in(scope="openid dialtone:admin")
        fewer = (await alice.refresh(first["refresh_token"], scope="phone")).json()
        more = await alice.refresh(fewer["refresh_token"], scope="phone billing")

        assert fewer["scope"] == "phone"
        assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")


# -- redirect URIs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:3000/auth/callback",
        "https://localhost/callback",
        "http://127.0.0.1:8010/ops",
        "http://127.0.0.2:1/",
        "http://[::1]:5173/",
        "http://localhost:3000/callback?tenant=a",
    ],
)
async def test_redirect_uri_on_this_machine_is_accepted(uri: str) -> None:
    async with browser() as alice:
        location = (await alice.authorize(redirect_uri=uri)).headers["location"]

        assert location.startswith(f"{uri}{'&' if '?' in uri else '?'}code=")


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        "https://app.example.com/callback",
        "http://localhost.example.com/",
        "http://localhost@example.com/",
        "http://localhost:3000@example.com/",
        "http://user@localhost/",
        "http://example.com\\@localhost/",
        "http://localhost\\.example.com/",
        "http://localhost/\r\nSet-Cookie: a=b",
        "http://local\thost/",
        "http://localhost:port/",
        "http://localhost/#fragment",
        "http://0.0.0.0/",
        "//localhost/",
        "/callback",
        "javascript:alert(1)",
        "com.example.app://callback",
        "http://[::1",
    ],
)
async def test_other_redirect_uri_gets_a_page_and_no_redirect(uri: str | None) -> None:
    async with browser() as alice:
        page = await alice.authorize(redirect_uri=uri)

        assert page.status_code == 400
        assert "location" not in page.headers
        assert "redirect_uri" in page.text


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
async def test_repeated_target_gets_a_page_and_no_redirect(name: str) -> None:
    async with browser() as alice:
        page = await alice.http.get(
            "/authorize", params=[("client_id", "a"), ("redirect_uri", CALLBACK), (name, CALLBACK)]
        )

        assert (page.status_code, "location" in page.headers) == (400, False)


async def test_missing_client_id_gets_a_page_and_no_redirect() -> None:
    async with browser() as alice:
        page = await alice.authorize(client_id=None)

        assert (page.status_code, "client_id" in page.text) == (400, True)


# -- errors of the authorization request ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"scope": 'openid "'}, "invalid_scope"),
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"request_uri": "https://app.example.com/request"}, "request_uri_not_supported"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_invalid_request_is_reported_to_the_application(changes: dict[str, str | None], error: str) -> None:
    async with browser() as alice:
        answer = parameters_of(await alice.authorize(**changes))

        assert (answer["error"], answer["state"]) == (error, "s1")
        assert answer["error_description"]
        assert "code" not in answer


async def test_repeated_parameter_is_an_error() -> None:
    async with browser() as alice:
        target = [("client_id", CLIENT), ("redirect_uri", CALLBACK), ("state", "s1")]
        answer = await alice.http.get("/authorize", params=[*target, ("scope", "a"), ("scope", "b")])

        assert parameters_of(answer)["error"] == "invalid_request"


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_signed_in_browser_gets_a_code_without_a_page() -> None:
    async with browser() as alice:
        first = await alice.sign_in()
        second = await alice.sign_in(prompt="none", login_hint=None)

        assert (
            get_unverified_claims(first["access_token"])["sid"] == get_unverified_claims(second["access_token"])["sid"]
        )


async def test_session_cookie_is_unreadable_for_scripts() -> None:
    async with browser() as alice:
        cookie = (await alice.authorize()).headers["set-cookie"].lower()

        assert "httponly" in cookie
        assert "samesite=lax" in cookie


@pytest.mark.parametrize("changes", [{"login_hint": "bob"}, {"max_age": "30", "login_hint": None}])
async def test_silent_request_for_another_sign_in_is_rejected(changes: dict[str, str | None]) -> None:
    async with browser() as alice:
        await alice.authorize()
        alice.clock.seconds += 31

        assert parameters_of(await alice.authorize(prompt="none", **changes))["error"] == "login_required"


async def test_sign_out_ends_the_session_and_returns_to_the_application() -> None:
    async with browser() as alice:
        tokens = await alice.sign_in()
        back = {"post_logout_redirect_uri": "http://localhost:3000/", "state": "s2"}
        signed_out = await alice.http.get("/end_session", params=back | {"id_token_hint": tokens["id_token"]})

        assert parameters_of(signed_out, "http://localhost:3000/") == {"state": "s2"}
        assert parameters_of(await alice.authorize(prompt="none", login_hint=None))["error"] == "login_required"
        assert (await alice.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await alice.userinfo(tokens["access_token"])).status_code == 401


async def test_id_token_hint_signs_out_without_a_cookie() -> None:
    async with browser() as alice:
        tokens = await alice.sign_in()
        alice.http.cookies.clear()
        page = await alice.http.post("/end_session", data={"id_token_hint": tokens["id_token"]})

        assert (page.status_code, "Signed out" in page.text) == (200, True)
        assert (await alice.refresh(tokens["refresh_token"])).status_code == 400


async def test_id_token_hint_of_another_tab_signs_only_its_user_out() -> None:
    async with browser() as one:
        of_alice = await one.sign_in()
        of_bob = await one.sign_in(login_hint="bob")
        await one.http.get("/end_session", params={"id_token_hint": of_alice["id_token"]})

        assert (await one.refresh(of_alice["refresh_token"])).status_code == 400
        assert (await one.refresh(of_bob["refresh_token"])).status_code == 200
        assert "code" in parameters_of(await one.authorize(prompt="none", login_hint=None)), "the cookie is bob's"


async def test_sign_out_never_redirects_to_another_machine() -> None:
    async with browser() as alice:
        page = await alice.http.get("/end_session", params={"post_logout_redirect_uri": "https://app.example.com/"})

        assert (page.status_code, "location" in page.headers) == (400, False)


@pytest.mark.parametrize("is_available", [True, False])
async def test_sign_out_sends_a_logout_token(is_available: bool) -> None:
    received: list[bytes] = []

    async def logout(request: Request) -> Response:
        received.append(await request.body())
        return Response(status_code=200)

    async with serve(Starlette(routes=[Route("/logout", logout, methods=["POST"])])) as service:
        uri = f"{service}/logout" if is_available else "http://127.0.0.1:1/logout"
        async with browser(backchannel_logout_uri=uri) as alice:
            await alice.sign_in()
            signed_out = await alice.http.get("/end_session", params={"post_logout_redirect_uri": CALLBACK})

    assert signed_out.status_code == 303
    assert [body.startswith(b"logout_token=ey") for body in received] == [True] * is_available


# -- token endpoint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code_verifier": None}, "invalid_request"),
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"client_id": None}, "invalid_request"),
        ({"client_id": "wiki"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:8010/other"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"code": "unknown"}, "invalid_grant"),
    ],
)
async def test_invalid_token_request_is_rejected(changes: dict[str, str | None], error: str) -> None:
    async with browser() as alice:
        answer = await alice.redeem(await alice.code(), **changes)

        assert (answer.status_code, answer.json()["error"]) == (400, error)
        assert answer.headers["cache-control"] == "no-store"


async def test_code_expires() -> None:
    async with browser() as alice:
        code = await alice.code()
        alice.clock.seconds += CODE_SECONDS

        assert (await alice.redeem(code)).json()["error"] == "invalid_grant"


async def test_second_use_of_a_code_ends_the_grant() -> None:
    async with browser() as alice:
        code = await alice.code()
        tokens = (await alice.redeem(code)).json()
        again = await alice.redeem(code)

        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        assert (await alice.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_code_cannot_be_guessed_with_several_verifiers() -> None:
    async with browser() as alice:
        code = await alice.code()
        await alice.redeem(code, code_verifier="x" * 43)

        assert (await alice.redeem(code)).json()["error"] == "invalid_grant"


async def test_refresh_returns_a_new_refresh_token() -> None:
    async with browser() as alice:
        first = await alice.sign_in()
        second = (await alice.refresh(first["refresh_token"])).json()
        third = await alice.refresh(second["refresh_token"])

        assert third.status_code == 200
        assert len({first["refresh_token"], second["refresh_token"], third.json()["refresh_token"]}) == 3
        assert "nonce" not in get_unverified_claims(second["id_token"])


async def test_second_use_of_a_refresh_token_ends_the_grant() -> None:
    async with browser() as alice:
        first = await alice.sign_in()
        second = (await alice.refresh(first["refresh_token"])).json()

        assert (await alice.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await alice.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"


async def test_refresh_token_of_another_client_is_rejected() -> None:
    async with browser() as alice:
        tokens = await alice.sign_in()

        assert (await alice.refresh(tokens["refresh_token"], client_id="wiki")).json()["error"] == "invalid_grant"
        assert (await alice.refresh(tokens["refresh_token"])).status_code == 200


async def test_client_with_a_secret_may_use_http_basic() -> None:
    async with browser() as alice:
        form = {"grant_type": "authorization_code", "code": await alice.code(), "redirect_uri": CALLBACK}
        answer = await alice.http.post("/token", data=form | {"code_verifier": alice.verifier}, auth=(CLIENT, "secret"))

        assert answer.status_code == 200


async def test_malformed_http_basic_is_rejected() -> None:
    async with browser() as alice:
        answer = await alice.http.post("/token", data={"grant_type": "x"}, headers={"Authorization": "Basic ?"})

        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_repeated_form_field_is_rejected() -> None:
    async with browser() as alice:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await alice.http.post("/token", content="grant_type=a&grant_type=b", headers=headers)

        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_json_body_with_the_content_type_of_a_form_is_read_as_json() -> None:
    async with browser() as alice:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await alice.http.post("/token", content='{"user": "alice"}', headers=headers)

        assert answer.status_code == 200


async def test_pages_of_other_origins_may_request_tokens() -> None:
    async with browser() as alice:
        answer = await alice.http.post("/token", data={"grant_type": "x"}, headers={"Origin": "http://localhost:5173"})

        assert answer.headers["access-control-allow-origin"] == "*"


# -- userinfo ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DEMO, "auth0", "keycloak"])
async def test_userinfo_has_the_subject_of_the_id_token(name: str) -> None:
    async with browser(name) as alice:
        tokens = await alice.sign_in()
        profile = (await alice.userinfo(tokens["access_token"])).json()

        assert profile["sub"] == get_unverified_claims(tokens["id_token"])["sub"]
        assert (profile["name"], profile["email"]) == ("Alice", "alice@example.com")


@pytest.mark.parametrize("kind", ["id_token", "refresh_token"])
async def test_userinfo_rejects_other_tokens(kind: str) -> None:
    async with browser() as alice:
        answer = await alice.userinfo((await alice.sign_in())[kind])

        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_userinfo_rejects_an_expired_token() -> None:
    async with browser() as alice:
        tokens = await alice.sign_in()
        alice.clock.seconds += 3600

        assert (await alice.userinfo(tokens["access_token"])).status_code == 401
