"""The settings of grants: keys and policy rules, and one-line errors for excessive rights."""

from pathlib import Path

import pytest

from app.adapters.identity.grant_keys import GrantSigningKey
from app.config.settings import Settings, SettingsError
from app.vending.grants.models import GrantKind
from app.vending.models import LoginMethod
from tests.support.configuration import ISSUER, load_file
from tests.support.grants import ed25519_key, grant_key
from tests.support.pem_spellings import SPELLINGS, Spelling

GUESTS = '[[policy.rules]]\nname = "guests"\nissuers = ["dialtone:guests"]\n'
CONNECTION = 'connection_id = "88"\n'
USERS = '[[policy.rules]]\nname = "users"\nissuers = ["dialtone:users"]\n'


def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rules: str, **changes: str) -> Settings:
    return load_file(monkeypatch, tmp_path, ISSUER + rules, **({"DIALTONE_GRANT_KEY": grant_key()} | changes))


def test_rule_for_guests_gives_login_tokens_and_no_push(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = load(monkeypatch, tmp_path, GUESTS + CONNECTION, DIALTONE_SIP_PASSWORD="true").identity().policy

    allowance = policy.rules[0].allowance
    assert allowance is not None
    assert (allowance.connection_id, allowance.push) == ("88", False)
    assert allowance.login_methods == {LoginMethod.LOGIN_TOKEN}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("key", [grant_key(), ed25519_key()], ids=["P-256", "Ed25519"])
def test_every_spelling_of_the_signing_key_is_read(key: str, spelling: Spelling) -> None:
    assert GrantSigningKey(spelling(key)).public_jwk() == GrantSigningKey(key).public_jwk()


@pytest.mark.parametrize(("written", "required"), [("", "limited"), ("limited", "limited"), ("none", "none")])
def test_connection_of_guests_must_limit_the_cost_of_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, required: str
) -> None:
    rule = GUESTS + CONNECTION + (f'outbound = "{written}"\n' if written else "")

    allowance = load(monkeypatch, tmp_path, rule).identity().policy.rules[0].allowance

    assert allowance is not None
    assert allowance.outbound == required


def test_backend_has_the_kinds_of_its_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rule = '[[policy.rules]]\nname = "shop"\nvouches_for = ["guest"]\n'

    allowance = load(monkeypatch, tmp_path, rule).identity().policy.rules[0].allowance

    assert allowance is not None
    assert allowance.vouches_for == {GrantKind.GUEST}
    assert not allowance.admin


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (GUESTS, "connection_id"),
        (GUESTS + CONNECTION + "push = true\n", "push"),
        (GUESTS + CONNECTION + 'grants = ["sip_password"]\n', "grants"),
        (GUESTS + CONNECTION + 'outbound = "any"\n', "outbound"),
        (GUESTS.replace('"dialtone:guests"', '"dialtone:guests", "staff"') + CONNECTION, "rule of their own"),
        (USERS + "admin = true\n", "admin"),
        (USERS + 'vouches_for = ["user"]\n', "vouches_for"),
        (USERS + 'scopes = ["phone"]\n', "scopes"),
        (USERS.replace("dialtone:users", "dialtone:operators"), "issuers"),
    ],
)
def test_rule_that_gives_a_grant_too_much_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rules: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        load(monkeypatch, tmp_path, rules)

    assert "\n" not in str(error.value)


def test_rule_that_denies_guests_needs_no_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(monkeypatch, tmp_path, GUESTS + 'effect = "deny"\n').identity().policy.rules[0].allowance is None


@pytest.mark.parametrize("issuer", ["dialtone:users", "dialtone:guests", "dialtone:anything", "{tid}:users"])
def test_identity_provider_cannot_have_the_issuer_of_grants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, issuer: str
) -> None:
    with pytest.raises(SettingsError, match="reserved for grants"):
        load_file(monkeypatch, tmp_path, ISSUER.replace("https://id.example.com", issuer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DIALTONE_GRANT_KEY": "CANARY"}, "DIALTONE_GRANT_KEY: is not an unencrypted private key in PEM"),
        ({"DIALTONE_OTHER_GRANT_KEY": "CANARY"}, "DIALTONE_OTHER_GRANT_KEY: is not"),
        ({"DIALTONE_OTHER_GRANT_KEY": grant_key()}, "is the same key"),
        ({"DIALTONE_GRANT_KEY": "", "DIALTONE_OTHER_GRANT_KEY": grant_key()}, "without DIALTONE_GRANT_KEY"),
        ({"DIALTONE_GRANT_KEY": ""}, "DIALTONE_GRANT_KEY: is not set, but the rule users is for grants"),
    ],
)
def test_faulty_keys_are_rejected_without_their_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        load(monkeypatch, tmp_path, USERS, **changes)

    assert "CANARY" not in str(error.value)
    assert "BEGIN" not in str(error.value)


def test_keys_may_be_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "grants.pem").write_text(ed25519_key())

    settings = load_file(monkeypatch, tmp_path, ISSUER + USERS, DIALTONE_GRANT_KEY_FILE=str(tmp_path / "grants.pem"))

    keys = settings.identity().grant_keys
    assert keys is not None
    assert [key["alg"] for key in keys.jwks()["keys"]] == ["EdDSA"]
    assert "BEGIN" not in repr(settings)
    assert "BEGIN" not in repr(keys)
