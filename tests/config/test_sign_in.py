"""The settings of the sign-in of operators."""

from pathlib import Path

import pytest

from app.config.settings import SettingsError
from tests.support.configuration import ISSUER, load_file, load_variables


def test_client_and_scopes_are_read_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(
        monkeypatch, DIALTONE_OPS_CLIENT_ID="dialtone-operators", DIALTONE_OPS_SCOPES="openid, api://dialtone/admin"
    )

    ((table, _),) = settings.identity().issuers
    assert table.ops_client_id == "dialtone-operators"
    assert table.ops_scopes == {"openid", "api://dialtone/admin"}


def test_default_scopes_contain_the_scope_of_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    ((table, _),) = load_variables(monkeypatch, DIALTONE_OPS_CLIENT_ID="x").identity().issuers

    assert table.ops_scopes == {"openid", "dialtone:admin"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OPS_SCOPES": "openid admin"}, "DIALTONE_OPS_SCOPES: has no effect without ops_client_id"),
        ({"OPS_CLIENT_ID": "x", "OPS_SCOPES": "admin"}, "DIALTONE_OPS_SCOPES: must contain openid"),
        ({"OPS_CLIENT_ID": "x", "OPS_SCOPES": 'openid "a'}, "DIALTONE_OPS_SCOPES"),
        ({"OPS_CLIENT_ID": "x" * 256}, "DIALTONE_OPS_CLIENT_ID"),
        (
            {"OPS_CLIENT_ID": "x", "ISSUER": "backend", "ISSUER_SECRET": "s" * 32},
            "DIALTONE_OPS_CLIENT_ID: requires an issuer with a discovery",
        ),
        ({"OPS_CLIENT_ID": "x", "ISSUER_HEADER": "X-Token"}, "DIALTONE_OPS_CLIENT_ID: has no effect, because a proxy"),
    ],
)
def test_invalid_sign_in_is_rejected(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_variables(monkeypatch, **{f"DIALTONE_{name}": value for name, value in variables.items()})


def test_only_one_issuer_signs_operators_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = 'ops_client_id = "x"\n'
    other = ISSUER.replace("staff", "other").replace("id.example", "other.example")

    with pytest.raises(SettingsError, match="two issuers have an ops_client_id"):
        load_file(monkeypatch, tmp_path, ISSUER + client + other + client)
