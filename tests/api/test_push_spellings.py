"""Push material as users send it: Telnyx receives PEM that other parsers read, and stores it once."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.push_api import push_objects, push_request, register, upload_count
from tests.support.push_material import EC, android, cert_pem, ios, key, pem_of, same_ios, token_key
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.waiting import eventually

READ_BY_NODE = """
const { createPrivateKey, createSign, createVerify, createPublicKey, X509Certificate } = require("node:crypto");
const { certificate, private_key } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const key = createPrivateKey(private_key);
const signature = createSign("sha256").update("text").sign(key);
const isSound = createVerify("sha256").update("text").verify(createPublicKey(key), signature);
const isPair = !certificate || new X509Certificate(certificate).checkPrivateKey(key);
process.stdout.write(JSON.stringify(isSound && isPair));
"""


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, sqlite) as service:
        yield service


def spelled(wanted: dict[str, Any], spell: Spelling) -> dict[str, Any]:
    """The request with its PEM in that spelling."""
    if wanted["type"] == "ios":
        return {**wanted, "certificate": spell(wanted["certificate"]), "private_key": spell(wanted["private_key"])}
    account = wanted["project_account_json_file"]
    return {**wanted, "project_account_json_file": {**account, "private_key": spell(account["private_key"])}}


def openssl(*arguments: str, pem: str) -> str:
    done = subprocess.run(["openssl", *arguments], input=pem, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_by_node(certificate: str | None, private_key: str) -> bool:
    """Whether Node signs with the key, and finds that it belongs to the certificate."""
    given = json.dumps({"certificate": certificate, "private_key": private_key})
    done = subprocess.run(["node", "-e", READ_BY_NODE], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return bool(json.loads(done.stdout))


async def received(service: Service, wanted: dict[str, Any]) -> dict[str, Any]:
    """The push credential that Telnyx receives. The registration is deleted again."""
    answer = await register(service, wanted)
    assert answer.status_code == 201, answer.text
    (held,) = push_objects(service.telnyx)
    await push_request(service, "DELETE", f"/{answer.json()['id']}")
    await eventually(lambda: push_objects(service.telnyx) == [])
    return {**held, **(held.get("project_account_json_file") or {})}


@pytest.mark.parametrize("wanted", [same_ios(), android()], ids=["ios", "android"])
async def test_every_spelling_is_uploaded_as_pem_that_openssl_and_node_read(
    service: Service, wanted: dict[str, Any]
) -> None:
    held = {name: await received(service, spelled(wanted, spell)) for name, spell in SPELLINGS.items()}

    forms = {(item.get("certificate"), item["private_key"]) for item in held.values()}
    assert len(forms) == 1
    ((certificate, private_key),) = forms
    if shutil.which("openssl"):
        assert "valid" in openssl("pkey", "-check", "-noout", pem=private_key)
        public_key = openssl("pkey", "-pubout", pem=private_key)
        assert certificate is None or openssl("x509", "-noout", "-pubkey", pem=certificate) == public_key
    if shutil.which("node"):
        assert read_by_node(certificate, private_key) is True


async def test_rsa_key_is_uploaded_in_one_form(service: Service) -> None:
    formats = [pem_of(key()), pem_of(key(), pkcs8=True)]

    held = [await received(service, {**same_ios(), "private_key": private_key}) for private_key in formats]

    assert {item["private_key"] for item in held} == {formats[1]}


async def test_ec_key_is_uploaded_in_one_form(service: Service) -> None:
    certificate = cert_pem(owner=EC)
    wanted = {"type": "ios", "alias": "softphone", "certificate": certificate}

    held = [
        await received(service, {**wanted, "private_key": pem_of(token_key(), pkcs8=pkcs8)}) for pkcs8 in (False, True)
    ]

    assert {item["private_key"] for item in held} == {pem_of(token_key(), pkcs8=True)}


async def test_service_account_keeps_its_other_members(service: Service) -> None:
    wanted = android(extra={"nested": [1, None]})

    held = await received(service, spelled(wanted, SPELLINGS["CR"]))

    assert held["project_account_json_file"] == wanted["project_account_json_file"]


@pytest.mark.parametrize("wanted", [same_ios(), android()], ids=["ios", "android"])
async def test_same_material_in_another_spelling_is_the_same_registration(
    service: Service, wanted: dict[str, Any]
) -> None:
    first = await register(service, wanted)

    again = [await register(service, spelled(wanted, SPELLINGS[name])) for name in ("CR", "literal \\n", "indented")]
    replaced = await push_request(
        service, "PUT", f"/{first.json()['id']}", body=spelled(wanted, SPELLINGS["spaces for line ends"])
    )

    assert {answer.status_code for answer in again} == {200}
    assert [answer.json() for answer in (*again, replaced)] == [first.json()] * (len(again) + 1)
    assert upload_count(service.telnyx) == 1


@pytest.mark.parametrize("wanted", [ios(), android()], ids=["ios", "android"])
async def test_body_of_a_registration_is_the_body_of_a_validation(service: Service, wanted: dict[str, Any]) -> None:
    linted = await push_request(service, "POST", "/lint", body=wanted)
    registered = await register(service, wanted)

    assert (linted.status_code, registered.status_code) == (200, 201)
    assert linted.json()["ok"] is True
    assert linted.json()["fingerprint_sha256"] == registered.json()["fingerprint_sha256"]


@pytest.mark.parametrize("path", ["", "/lint"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "type is required: ios or android."),
        ({"type": None}, "type must be ios or android."),
        ({"type": "windows"}, "type must be ios or android."),
        ({"type": "iOS"}, "type must be ios or android."),
        ({"type": ["ios"]}, "type must be ios or android."),
        ({"type": {"ios": 1}}, "type must be ios or android."),
        ({"type": 1}, "type must be ios or android."),
    ],
    ids=json.dumps,
)
async def test_missing_or_unknown_type_is_named(
    service: Service, path: str, given: dict[str, Any], message: str
) -> None:
    material = {name: value for name, value in same_ios().items() if name != "type"}

    answer = await push_request(service, "POST", path, body={**material, **given})

    assert answer.status_code == 422
    assert [error["message"] for error in answer.json()["errors"]] == [message]
