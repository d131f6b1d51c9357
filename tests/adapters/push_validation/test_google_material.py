"""Validation of Google's service accounts: valid and invalid files, and spellings of the key."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.adapters.push_validation import fcm
from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.push_material import codes, key, pem_of, service_account
from tests.support.push_material_examples import GOOGLE_MATERIAL

KEY = pem_of(key())


@pytest.mark.parametrize("case", GOOGLE_MATERIAL.values(), ids=GOOGLE_MATERIAL)
def test_service_account_is_accepted_or_reported_by_code(case: tuple[Any, list[str]]) -> None:
    given_account, wanted = case

    report = fcm.validate(given_account)

    assert codes(report) == wanted
    assert (report.material is None) == bool(wanted)
    if report.material is not None:
        assert report.material.app_id == "softphone-1234"
        assert report.material.not_after is None
        assert report.material.upload["project_account_json_file"] == given_account
        assert "PRIVATE" not in repr(report)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_google_material_is_the_same_in_every_spelling(spell: Spelling) -> None:
    account = service_account()

    report = fcm.validate({**account, "private_key": spell(account["private_key"])})

    assert report.material == fcm.validate(account).material


def test_identity_of_a_service_account_is_stable() -> None:
    """The ledger holds a hash of it, so a change would upload each registered service account again."""
    account = service_account()
    public_key = key("google").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    named = json.dumps([account["project_id"], account["client_email"]]).encode()
    found = fcm.validate(account).material
    assert found is not None
    assert found.identity == b"android" + named + public_key
