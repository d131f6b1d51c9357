"""Sign-in at /ops and /docs with the identity provider: code, PKCE, state and nonce, errors, and sign-out."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Route, expect

from app.vending.audit import AuditAction, AuditCriteria
from tests.support.ops_page import CLIENT_ID, OpsPage, ops_environment

pytestmark = pytest.mark.timeout(120)

STORAGE = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@pytest.fixture
async def ops_page(tmp_path: Path) -> AsyncIterator[OpsPage]:
    async with ops_environment(tmp_path) as made:
        yield made


async def sent_bearer_token(ops_page: OpsPage) -> str:
    headers = [await request.all_headers() for request in ops_page.requests if "/v1/admin/" in request.url]
    return headers[-1]["authorization"].removeprefix("Bearer ")


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
    token = await sent_bearer_token(ops_page)

    assert len(token) > 100
    assert await ops_page.page.evaluate(STORAGE) == '[{},{},""]'
    assert token not in await ops_page.page.content()
    assert not any(token in request.url for request in ops_page.requests)
    assert ops_page.page.url.split("#")[0] == ops_page.url, "the code is removed from the URL"


async def test_only_the_state_the_nonce_and_the_verifier_are_stored_during_the_redirect(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.wait_for_selector("button[value=alice]")
    await ops_page.page.route("**/sign-in.json", lambda route: route.abort())
    await ops_page.page.goto(f"{ops_page.service.url}/ops/style.css")
    stored = json.loads(await ops_page.page.evaluate(STORAGE))

    assert json.loads(stored[1]["dialtone-sign-in"]).keys() == {"state", "nonce", "verifier", "fragment"}


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


async def test_unavailable_token_endpoint_is_explained(ops_page: OpsPage) -> None:
    await ops_page.page.route("**/token", lambda route: route.abort())
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=alice]")

    assert f"must allow the origin {ops_page.service.url} (CORS)" in await ops_page.error()


async def test_account_without_admin_rights_is_explained(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=bob]")

    assert "insufficient_scope" in await ops_page.error()
    assert "Sign in with another one" in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")


async def test_expired_token_is_renewed_without_a_page(ops_page: OpsPage) -> None:
    await ops_page.open()
    before = await sent_bearer_token(ops_page)
    attempts = 0

    async def reject_once(route: Route) -> None:
        nonlocal attempts
        attempts += 1
        await (route.fulfill(status=401, json={}) if attempts == 1 else route.continue_())

    await ops_page.page.route("**/v1/admin/state", reject_once)
    await ops_page.page.click("#refresh")
    await expect(ops_page.page.locator("#updated")).to_contain_text("Updated at")
    await ops_page.page.wait_for_timeout(500)

    assert attempts == 2
    assert await sent_bearer_token(ops_page) != before
    assert await ops_page.page.is_hidden("#error")


async def test_ended_session_keeps_the_view_until_the_next_sign_in(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")
    await ops_page.open()
    await ops_page.find("bob")
    await ops_page.page.route("**/v1/admin/**", lambda route: route.fulfill(status=401, json={"code": "invalid_token"}))
    await ops_page.page.click("#refresh")

    assert "Your session has ended. Sign in again: the view is kept." in await ops_page.error()
    assert await ops_page.page.is_visible(".devices li")
    await ops_page.page.unroute("**/v1/admin/**")
    await ops_page.page.click("#error-action")
    await ops_page.page.click("button[value=alice]")
    await ops_page.wait_until_open()
    await expect(ops_page.page.locator(".devices li")).to_have_count(1)


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
    await ops_page.page.wait_for_timeout(1500)  # the audit is written within a second
    criteria = AuditCriteria(action=AuditAction.DENIED)
    assert len(await ops_page.service.components.operators.leases.audit(criteria, None, 10)) == 1


async def test_entered_token_opens_the_page_and_is_forgotten_at_sign_out(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter_operator()
    await ops_page.wait_until_open()

    await ops_page.page.click("#sign-out")

    await ops_page.page.wait_for_selector("#sign-in:not([hidden])")
    assert await ops_page.page.is_hidden("#board")


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
