"""Each provider's accepted tokens log in with the preset and the values of its recipe, and its other tokens do not.

The issuers are those of the documentation, with a key of the test instead of the provider's.
"""

import pytest

from app.config.providers import PRESETS, VALUES
from tests.support.provider_trials import PROVIDERS, documented_tables, verify_tokens

RECIPES = {table["provider"]: table for table in documented_tables("identity-providers")}
WITHOUT_PRESET = {
    table["name"]: table for table in documented_tables("policy.md") if "name" in table and "signer" not in table
}
ONLY_THE_USER_KNOWS = VALUES | {"provider", "audiences", "tenants", "signer", "secret_env", "pem_file"}


def test_every_preset_has_one_recipe() -> None:
    documented = [table["provider"] for table in documented_tables("identity-providers")]

    assert sorted(documented) == sorted(PRESETS)


def test_recipe_sets_only_values_that_the_user_knows() -> None:
    others = {name: set(table) - ONLY_THE_USER_KNOWS for name, table in RECIPES.items()}

    assert {name for name, settings in others.items() if settings} == set()


def test_every_recipe_is_verified() -> None:
    assert set(PROVIDERS) == set(RECIPES) - {"aws-alb"}  # test_load_balancer


@pytest.mark.parametrize("name", PROVIDERS)
async def test_provider_logs_in_with_its_accepted_tokens_only(name: str) -> None:
    trial = await verify_tokens(PROVIDERS[name], RECIPES[name])

    assert (trial.refused, trial.accepted) == ([], [])


@pytest.mark.parametrize("name", PROVIDERS)
async def test_another_subject_claim_does_not_log_in_applications(name: str) -> None:
    trial = await verify_tokens(PROVIDERS[name], RECIPES[name] | {"subject_claim": "sub"})

    assert trial.accepted == []


@pytest.mark.parametrize("name", WITHOUT_PRESET)
async def test_issuer_without_a_preset_means_the_same(name: str) -> None:
    trial = await verify_tokens(PROVIDERS[name], WITHOUT_PRESET[name])

    assert (trial.refused, trial.accepted) == ([], [])
