"""Validation of Google's service accounts: valid and invalid files, and spellings of the key."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.adapters.push_validation import fcm
from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.push_material import android, codes, ios, key, pem_of, service_account, token_key

KEY = pem_of(key())

GOOGLES: dict[str, tuple[Any, list[str]]] = {
    "as downloaded": (service_account(), []),
    "with an older token_uri": (service_account(token_uri="https://accounts.google.com/o/oauth2/token"), []),
    "a JSON string": (json.dumps(service_account()), ["service_account_is_text"]),
    "a list": ([service_account()], ["service_account_is_text"]),
    "nothing": (None, ["service_account_is_text"]),
    "a server key": ("AAAAx7Yz:APA91b" + "x" * 100, ["is_server_key"]),
    "google-services.json": ({"project_info": {"project_id": "x"}, "client": []}, ["is_google_services_json"]),
    "an OAuth client": ({"installed": {"client_id": "x"}}, ["is_oauth_client"]),
    "another type": (service_account(type="authorized_user"), ["service_account_wrong_type"]),
    "no project": (service_account(project_id=...), ["project_id_missing"]),
    "an empty project": (service_account(project_id=""), ["project_id_missing"]),
    "no e-mail": (service_account(client_email=...), ["client_email_missing"]),
    "an invalid e-mail": (service_account(client_email="x"), ["client_email_missing"]),
    "no key": (service_account(private_key=...), ["service_account_key_unreadable"]),
    "half a key": (service_account(private_key=KEY[:200]), ["service_account_key_unreadable"]),
    "an encrypted key": (
        service_account(private_key=pem_of(key(), passphrase=b"x")),
        ["service_account_key_unreadable"],
    ),
    "an EC key": (service_account(private_key=pem_of(token_key(), pkcs8=True)), ["service_account_key_unreadable"]),
    "a weak key": (service_account(private_key=pem_of(key("weak", 1024))), ["private_key_weak"]),
    "another token_uri": (service_account(token_uri="https://evil.example.com/token"), ["token_uri_not_google"]),
    "no token_uri": (service_account(token_uri=...), ["token_uri_not_google"]),
    "huge": (service_account(padding="x" * 40_000), ["material_too_large"]),
    "credentials of a user": (
        {"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"},
        ["service_account_wrong_type"],
    ),
    "a web app's configuration": ({"apiKey": "x", "projectId": "y"}, ["service_account_wrong_type"]),
    "the body of a registration": (android(), ["is_registration_request"]),
    "the body of a registration of an iOS app": (ios(), ["is_registration_request"]),
    "empty": ({}, ["service_account_wrong_type"]),
    "the type alone": (
        {"type": "service_account"},
        ["project_id_missing", "client_email_missing", "token_uri_not_google", "service_account_key_unreadable"],
    ),
}


@pytest.mark.parametrize("case", GOOGLES.values(), ids=GOOGLES)
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
