"""Incidents that operators handle with /ops alone: a stolen laptop, a leaked key, a wrong policy rule."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.support.ops_page import CLIENT_ID, ops_environment

pytestmark = pytest.mark.timeout(120)

POLICY = f"""
[[issuers]]
issuer = "IDENTITY"
audiences = ["dialtone"]
ops_client_id = "{CLIENT_ID}"

[[policy.rules]]
name = "no-contractors"
effect = "deny"
claims = {{ sub = "bob" }}

[[policy.rules]]
name = "all-users"
admin = true
"""


async def test_stolen_laptop_is_logged_out_and_its_token_is_rejected(tmp_path: Path) -> None:
    async with ops_environment(tmp_path) as ops_page:
        await ops_page.issue("bob", "laptop", label="Work laptop")
        await ops_page.issue("bob", "phone")
        stolen = {"Authorization": f"Bearer {await ops_page.token('bob')}"}
        await asyncio.sleep(1)  # `iat` has a resolution of one second
        await ops_page.open()
        await ops_page.find("bob")

        await ops_page.page.click(".devices li:has-text('Work laptop') button")
        await ops_page.page.wait_for_selector("dialog[open]")
        assert "Other devices of the user stay logged in" in await ops_page.page.inner_text("dialog")
        await ops_page.page.keyboard.press("Escape")
        assert len(ops_page.telnyx.live()) == 2, "cancel changes nothing"
        await ops_page.page.click(".devices li:has-text('Work laptop') button")
        await ops_page.confirm()

        await expect(ops_page.page.locator("#notice")).to_contain_text("Dialtone rejects earlier tokens of bob")
        await expect(ops_page.page.locator(".devices li")).to_have_count(1)
        assert len(ops_page.telnyx.live()) == 1
        assert (await ops_page.service.ask("GET", headers=stolen)).status_code == 401
        await expect(ops_page.page.locator("#audit")).to_contain_text("asked_by_operator")
        assert ops_page.errors == []


async def test_user_is_logged_out_on_all_devices(tmp_path: Path) -> None:
    async with ops_environment(tmp_path) as ops_page:
        for device in ("laptop", "phone"):
            await ops_page.issue("bob", device)
        await ops_page.open()
        await ops_page.find("bob")

        await ops_page.page.click("text=Log out user")
        await ops_page.page.wait_for_selector("dialog[open]")
        await ops_page.page.uncheck("#confirm-option")
        await ops_page.page.click("#confirm-yes")

        await expect(ops_page.page.locator("#notice")).to_have_text("Dialtone logged out bob on 2 devices.")
        await expect(ops_page.page.locator("#search-result")).to_contain_text("No live device")
        assert await ops_page.issue("bob", "laptop") == 201, "the user may log in again"


async def test_tokens_and_keys_of_an_issuer_with_a_leaked_key_are_replaced(tmp_path: Path) -> None:
    async with ops_environment(tmp_path) as ops_page:
        leaked = {"Authorization": f"Bearer {await ops_page.token('bob')}"}
        await asyncio.sleep(1)  # `iat` has a resolution of one second
        await ops_page.open()
        fetches = await ops_page.page.locator("#keys dd").nth(1).inner_text()

        await ops_page.page.click("#keys >> text=Fetch keys")
        await expect(ops_page.page.locator("#notice")).to_contain_text("Dialtone fetched the keys")
        await expect(ops_page.page.locator("#keys dd").nth(1)).not_to_have_text(fetches)
        await asyncio.sleep(1)
        await ops_page.page.click("#keys >> text=Reject tokens")
        await ops_page.confirm()
        await expect(ops_page.page.locator("#notice")).to_contain_text("Dialtone rejects tokens of")

        assert (await ops_page.service.ask("GET", headers=leaked)).status_code == 401
        await asyncio.sleep(1)  # the next token is issued in another second than the rejection
        await ops_page.page.goto("about:blank")
        await ops_page.open()
        await expect(ops_page.page.locator("#audit")).to_contain_text("tokens_refused")


async def test_wrong_policy_rule_is_found_in_the_audit(tmp_path: Path) -> None:
    async with ops_environment(tmp_path, file=POLICY) as ops_page:
        assert await ops_page.issue("bob", "laptop") == 403
        await ops_page.open("#action=denied")

        await expect(ops_page.page.locator("#audit tr").first).to_contain_text("AccessDenied (rule no-contractors)")
        assert "bob" in await ops_page.page.inner_text("#audit tr >> nth=0")
        assert "Enforced" in await ops_page.page.inner_text("#policy-mode")
        assert "no-contractors denies: claims sub" in await ops_page.page.inner_text("#rules")
        assert ops_page.errors == []
