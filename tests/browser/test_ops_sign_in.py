"""Sign-in at /ops and /docs with the identity provider: code, PKCE, state and nonce, errors, and sign-out."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Route, expect

from app.vending.audit import AuditAction, AuditCriteria
from app.vending.policy import ADMIN_SCOPE
from tests.support.ops_page import CLIENT_ID, OpsPage, ops_environment

pytestmark = pytest.mark.timeout(120)

STORAGE = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@pytest.fixture
async def ops_page(tmp_path: Path) -> AsyncIterator[OpsPage]:
    async with ops_environment(tmp_path) as made:
        yield made


async def test_operator_signs_in_with_a_code_and_pkce(ops_page: OpsPage) -> None:
    await ops_page.open()

    (authorization,) = [request for request in ops_page.requests if "/authorize?response_type" in request.url][:1]
    sent = {name: values[0] for name, values in parse_qs(urlsplit(authorization.url).query).items()}
    assert sent["response_type"] == "code"
    assert sent["client_id"] == CLIENT_ID
    assert sent["redirect_uri"] == ops_page.url
    assert sent["scope"] == "openid dialtone:admin"
    assert sent["code_challenge_method"] == "S256"
    assert min(len(sent[name]) for name in ("state", "nonce", "code_challenge")) == 43
    assert ops_page.errors == []


async def test_token_is_neither_in_storage_nor_in_a_url(ops_page: OpsPage) -> None:
    await ops_page.open()
    token = await ops_page.sent_bearer_token()

    assert len(token) > 100
    assert await ops_page.page.evaluate(STORAGE) == '[{},{},""]'
    assert token not in await ops_page.page.content()
    assert not any(token in request.url for request in ops_page.requests)
    assert ops_page.page.url.split("#")[0] == ops_page.url, "the code is removed from the URL"


async def test_no_token_and_no_code_is_stored_during_the_redirect(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.wait_for_selector("button[value=alice]")
    await ops_page.page.route("**/sign-in.json", lambda route: route.abort())
    await ops_page.page.goto(f"{ops_page.service.url}/ops/style.css")
    stored = json.loads(await ops_page.page.evaluate(STORAGE))

    assert json.loads(stored[1]["dialtone-sign-in"]).keys() == {"state", "nonce", "verifier", "issuer", "fragment"}


async def test_sign_in_keeps_the_view(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")

    await ops_page.open("#find=bob&action=issued")

    await expect(ops_page.page.locator(".devices li")).to_have_count(1)
    assert await ops_page.page.input_value("#action") == "issued"


async def test_cancelled_sign_in_is_explained(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("text=Cancel")

    assert "denied the sign-in, or you cancelled it" in await ops_page.error()
    assert "access_denied" in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")
    assert "error=" not in ops_page.page.url


@pytest.mark.parametrize(
    ("query", "explanation"),
    [
        ("code=abc&state=wrong", "its state is wrong. Sign in again"),
        ("error=login_required&state=STATE", "You are not signed in at the identity provider"),
        ("error=invalid_scope&state=STATE", "does not allow these scopes"),
        ("code=expired&state=STATE", "its code was used before. Sign in again"),
        ("code=abc&state=STATE&iss=https://other.example.com", "comes from another issuer"),
    ],
)
async def test_invalid_response_of_the_provider_is_explained(ops_page: OpsPage, query: str, explanation: str) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.wait_for_selector("button[value=alice]")
    state = parse_qs(urlsplit(ops_page.page.url).query)["state"][0]

    await ops_page.page.goto(f"{ops_page.url}?{query.replace('STATE', state)}")

    assert explanation in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")
    assert await ops_page.page.evaluate(STORAGE) == '[{},{},""]'


async def test_response_without_a_pending_sign_in_is_rejected(ops_page: OpsPage) -> None:
    await ops_page.page.goto(f"{ops_page.url}?code=abc&state=def")

    assert "no pending sign-in" in await ops_page.error()
    assert not any(request.url.endswith("/token") for request in ops_page.requests)


async def test_id_token_with_another_nonce_is_rejected(ops_page: OpsPage) -> None:
    await ops_page.page.route(
        "**/authorize?response_type*",
        lambda route: route.continue_(url=route.request.url.replace("nonce=", "nonce=other")),
    )
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=alice]")

    assert "its nonce is wrong" in await ops_page.error()


@pytest.mark.parametrize(
    ("response", "explanation"),
    [
        ({"content_type": "text/html", "body": "<h1>Maintenance</h1>"}, "sent no tokens and no error. (status 200)"),
        ({"json": None}, "sent no tokens and no error. (status 200)"),
        ({"status": 502, "body": ""}, "sent no tokens and no error. (status 502)"),
        ({"status": 503, "json": {"error": "server_error"}}, "The identity provider failed. Try again later."),
        ({"json": {"access_token": "e30.e30.AAAA"}}, "returned no ID token"),
        ({"json": {"access_token": "e30.e30.AAAA", "id_token": "x.bm90IEpTT04.y"}}, "returned no ID token"),
    ],
    ids=["HTML", "null", "no body", "server error", "no ID token", "an ID token that is not JSON"],
)
async def test_invalid_answer_of_the_token_endpoint_is_explained(
    ops_page: OpsPage, response: dict[str, Any], explanation: str
) -> None:
    await ops_page.page.route("**/token", lambda route: route.fulfill(**response))
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=alice]")

    assert explanation in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")


async def test_opaque_access_token_is_explained(ops_page: OpsPage) -> None:
    async def with_opaque_token(route: Route) -> None:
        answer = await (await route.fetch()).json()
        await route.fulfill(json=answer | {"access_token": "n2fF6-opaque"})

    await ops_page.page.route("**/token", with_opaque_token)
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=alice]")

    assert "The access_token of the identity provider is not a JWT" in await ops_page.error()


async def test_code_is_not_sent_to_another_issuer_than_the_sign_in_began_with(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.wait_for_selector("button[value=alice]")
    settings = (await ops_page.service.client.get("/ops/sign-in.json")).json()
    other = settings | {"issuer": "https://other.example.com"}
    await ops_page.page.route("**/sign-in.json", lambda route: route.fulfill(json=other))
    await ops_page.page.click("button[value=alice]")

    assert "comes from another issuer" in await ops_page.error()
    assert not any(request.url.endswith("/token") for request in ops_page.requests)


async def test_two_tabs_sign_in_independently(ops_page: OpsPage) -> None:
    first, second = ops_page.page, await ops_page.context.new_page()
    for tab in (first, second):
        await tab.goto(ops_page.url)
        await tab.click("#provider")
        await tab.wait_for_selector("button[value=alice]")
    for tab in (second, first):
        await tab.click("button[value=alice]")
        await expect(tab.locator("#updated")).to_contain_text("Updated at")

    await second.click("#sign-out")
    await second.wait_for_selector("#provider:not([hidden])")
    assert await first.is_visible("#board")


async def test_unavailable_service_is_not_reported_as_unavailable_provider(ops_page: OpsPage) -> None:
    await ops_page.page.route("**/sign-in.json", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    await ops_page.page.goto(ops_page.url)

    await expect(ops_page.page.locator("#sign-in-state")).to_have_text(
        "Dialtone does not answer. Reload the page to try again."
    )


async def test_unavailable_token_endpoint_is_explained(ops_page: OpsPage) -> None:
    await ops_page.page.route("**/token", lambda route: route.abort())
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=alice]")

    assert f"must allow the origin {ops_page.service.url} (CORS)" in await ops_page.error()


async def test_sign_out_ends_the_session_of_the_provider(ops_page: OpsPage) -> None:
    await ops_page.open()
    await ops_page.page.click("#sign-out")
    await ops_page.page.wait_for_selector("#provider:not([hidden])")

    assert await ops_page.page.is_hidden("#board")
    (ended,) = [request for request in ops_page.requests if "/end_session" in request.url]
    assert "id_token_hint" not in ended.url
    await ops_page.page.click("#provider")
    assert await ops_page.page.wait_for_selector("button[value=alice]"), "the provider asks for an account"


async def test_rejected_token_is_one_audit_event(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter("e30.e30.AAAA")

    assert "invalid_token" in await ops_page.error()
    await ops_page.wait_until_audited()
    criteria = AuditCriteria(action=AuditAction.DENIED)
    assert len(await ops_page.service.components.operators.leases.audit(criteria, None, 10)) == 1


async def test_entered_token_opens_the_page_and_is_forgotten_at_sign_out(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter_operator()
    await ops_page.wait_until_open()

    await ops_page.page.click("#sign-out")

    await ops_page.page.wait_for_selector("#sign-in:not([hidden])")
    assert await ops_page.page.is_hidden("#board")


async def test_entered_token_may_follow_the_word_bearer(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter(f"Bearer  {await ops_page.token(scope=f'phone {ADMIN_SCOPE}')} ")

    await ops_page.wait_until_open()


@pytest.mark.parametrize(
    "text", ["two words", "\u201ce30.e30.AAAA\u201d", "n2fF6-opaque", '{"access_token": "e30.e30.AAAA"}']
)
async def test_text_that_is_no_token_is_not_sent(ops_page: OpsPage, text: str) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter(text)

    assert "This text is not an access token." in await ops_page.error()
    assert not any("/v1/admin/" in request.url for request in ops_page.requests)
    assert await ops_page.page.input_value("#token") == ""


async def test_page_without_a_client_accepts_entered_tokens_only(tmp_path: Path) -> None:
    async with ops_environment(tmp_path, ops_client_id=...) as ops_page:
        await ops_page.page.goto(ops_page.url)
        await expect(ops_page.page.locator("#sign-in-state")).to_contain_text("No sign-in is configured")

        assert await ops_page.page.is_hidden("#provider")
        await ops_page.enter_operator()
        await ops_page.wait_until_open()


async def test_docs_authorize_signs_in_with_the_provider(ops_page: OpsPage) -> None:
    page = ops_page.page
    await page.goto(f"{ops_page.service.url}/docs")
    await page.click("button.authorize")
    form = page.locator(".auth-container", has_text="identityProvider")
    for scope in await form.locator(".scopes input[type=checkbox]").all():
        await scope.set_checked(True, force=True)
    async with page.expect_popup() as popup:
        await form.locator("button.authorize").click()
    await (await popup.value).click("button[value=alice]")
    await expect(form).to_contain_text("Authorized")
    await page.click(".btn-done >> nth=0")
    await page.click("#operations-Operators-getServiceStatus")
    await page.click("button.execute")

    status = page.locator(".live-responses-table tbody .response-col_status")
    await expect(status).to_contain_text("200")
    assert ops_page.errors == []
