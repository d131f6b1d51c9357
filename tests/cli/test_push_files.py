"""`dialtone push lint` and `convert` with the files that keychains, openssl and consoles write."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner, Result

from app.cli import app
from tests.support.push_material import (
    BUNDLE_ID,
    authority_pem,
    cert_pem,
    certificate,
    key,
    pem_of,
    secrets_in,
    service_account,
    token_key,
)

DOCS = Path(__file__).parents[2] / "docs" / "mobile.md"
PASSWORD = "pä ss"
CIPHERS = {
    "keychain": ("-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES"),
    "OpenSSL 1": ("-legacy", "-descert"),
    "OpenSSL 3": (),
}
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

Push = Callable[..., Result]


@pytest.fixture
def push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Push:
    """`dialtone push` in an empty folder, with no settings."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, text=None: CliRunner().invoke(app, ["push", *arguments], input=text)


def write_bundle(path: Path, cipher: str, password: str = PASSWORD) -> None:
    """A .p12 with the certificate, the certificate of its issuer, and the key."""
    pem = path.with_suffix(".in")
    pem.write_text(cert_pem() + authority_pem("authority") + pem_of(key()))
    arguments = ("-export", *CIPHERS[cipher], "-in", str(pem), "-out", str(path), "-passout", f"pass:{password}")
    subprocess.run(["openssl", "pkcs12", *arguments], check=True, capture_output=True)
    pem.unlink()


# -- .p12 -----------------------------------------------------------------------------------------------------------


@needs_openssl
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"], ids=repr)
def test_bundle_is_valid_with_its_password(push: Push, tmp_path: Path, cipher: str, ending: str) -> None:
    write_bundle(tmp_path / "voip.p12", cipher)
    (tmp_path / "password").write_bytes((PASSWORD + ending).encode())

    from_file = push("lint", "voip.p12", "--password-file", "password")
    from_input = push("lint", "voip.p12", "--password-file", "-", text=PASSWORD + ending)

    assert from_file.exit_code == from_input.exit_code == 0, from_file.output
    assert f"Valid: ios push credential of {BUNDLE_ID}" in from_file.output


@needs_openssl
@pytest.mark.parametrize("options", [(), ("--password-file", "-")], ids=["no option", "empty input"])
def test_bundle_with_an_empty_password_is_valid(push: Push, tmp_path: Path, options: tuple[str, ...]) -> None:
    write_bundle(tmp_path / "voip.p12", "keychain", "")

    assert push("lint", "voip.p12", *options, text="").exit_code == 0


@needs_openssl
def test_bundle_without_its_password_is_named(push: Push, tmp_path: Path) -> None:
    write_bundle(tmp_path / "voip.p12", "keychain")

    missing = push("lint", "voip.p12")
    wrong = push("lint", "voip.p12", "--password-file", "-", text="wrong")

    assert (missing.exit_code, wrong.exit_code) == (2, 2)
    assert "voip.p12 needs its password: use --password-file FILE" in missing.output
    assert "voip.p12 cannot be opened: the password is wrong, or the file is damaged." in wrong.output


@needs_openssl
def test_bundle_without_a_key_is_named(push: Push, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text(cert_pem())
    export = ("-export", "-nokeys", "-in", "cert.pem", "-out", "voip.p12", "-passout", "pass:")
    subprocess.run(["openssl", "pkcs12", *export], check=True, capture_output=True, cwd=tmp_path)

    said = push("lint", "voip.p12")

    assert said.exit_code == 2
    assert said.output == "voip.p12 has no private key. Export both together, or specify a second file.\n"


def test_password_without_a_bundle_is_a_usage_error(push: Push, tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text(cert_pem() + pem_of(key()))

    assert push("lint", "both.pem", "--password-file", "-", text="x").exit_code == 2
    assert push("lint", "both.pem", "--password-file", "missing").exit_code == 2


@needs_openssl
def test_openssl_lines_of_the_documentation_split_a_keychain_export(push: Push, tmp_path: Path) -> None:
    """Without a terminal, openssl reads the password from standard input."""
    write_bundle(tmp_path / "voip.p12", "keychain", "secret")
    lines = re.findall(r"^openssl pkcs12 .*$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert len(lines) == 2

    for line in lines:
        done = subprocess.run(
            line.split(),
            cwd=tmp_path,
            input="secret\n",
            text=True,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    assert push("lint", "cert.pem", "key.pem").exit_code == 0


# -- other files ----------------------------------------------------------------------------------------------------


def test_binary_certificate_and_key_are_valid(push: Push, tmp_path: Path) -> None:
    (tmp_path / "voip.cer").write_bytes(certificate().public_bytes(Encoding.DER))
    (tmp_path / "key.der").write_bytes(key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))

    assert push("lint", "voip.cer", "key.der").exit_code == 0
    assert push("lint", "key.der", "voip.cer").exit_code == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_files_of_windows_are_valid(push: Push, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "both.pem").write_bytes((cert_pem() + pem_of(key())).replace("\n", "\r\n").encode(encoding))
    (tmp_path / "account.json").write_bytes(json.dumps(service_account()).encode(encoding))

    assert push("lint", "both.pem").exit_code == 0
    assert push("lint", "account.json").exit_code == 0


def test_certificate_without_its_key_is_named(push: Push, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text(cert_pem())
    (tmp_path / "key.pem").write_text(pem_of(key()))

    assert "cert.pem has no private key." in push("lint", "cert.pem").output
    assert "key.pem has no certificate." in push("lint", "key.pem").output


def test_certificate_that_expires_soon_fails_with_min_days(push: Push, tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(days=20, hours=1)
    (tmp_path / "both.pem").write_text(cert_pem(until=until) + pem_of(key()))

    enough = push("lint", "both.pem", "--min-days", "20")
    too_few = push("lint", "both.pem", "--min-days", "21")

    assert enough.exit_code == 0
    assert "in 20 days. Renew it soon." in enough.output
    assert too_few.exit_code == 1
    assert "expires in 20 days, and --min-days is 21" in too_few.output


def test_expired_certificate_fails(push: Push, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    (tmp_path / "both.pem").write_text(
        cert_pem(since=now - timedelta(days=9), until=now - timedelta(days=1)) + pem_of(key())
    )

    for command in (("lint",), ("convert", "--out-dir", "out")):
        said = push(*command, "both.pem")
        assert said.exit_code == 1
        assert said.output == (
            "certificate_expired (certificate): The certificate has expired. Renew it in Apple's developer account.\n"
        )
    assert not (tmp_path / "out").exists()


# -- base64, and files of another kind ------------------------------------------------------------------------------


@needs_openssl
def test_bundle_in_base64_is_valid(push: Push, tmp_path: Path) -> None:
    write_bundle(tmp_path / "voip.p12", "keychain")
    (tmp_path / "secret").write_bytes(base64.encodebytes((tmp_path / "voip.p12").read_bytes()))

    assert push("lint", "secret", "--password-file", "-", text=PASSWORD).exit_code == 0


def test_text_files_in_base64_are_valid(push: Push, tmp_path: Path) -> None:
    for name, text in (("both", cert_pem() + pem_of(key())), ("account", json.dumps(service_account()))):
        (tmp_path / name).write_bytes(base64.b64encode(text.encode()))

        assert push("lint", name).exit_code == 0


def test_pem_without_its_first_and_last_line_is_valid(push: Push, tmp_path: Path) -> None:
    for name, pem in (("cert", cert_pem()), ("key", pem_of(key()))):
        (tmp_path / name).write_text("\n".join(pem.splitlines()[1:-1]))

    assert push("lint", "cert", "key").exit_code == 0


@pytest.mark.parametrize("command", [("lint",), ("convert", "--out-dir", "out")], ids=lambda command: command[0])
def test_token_key_of_apple_is_named(push: Push, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "AuthKey_ABC.p8").write_text(pem_of(token_key(), pkcs8=True))

    said = push(*command, "AuthKey_ABC.p8")

    assert said.exit_code == 1
    assert said.output.startswith("is_p8_token_key (certificate, private_key): This is a .p8")


def test_fault_of_both_fields_is_printed_once(push: Push, tmp_path: Path) -> None:
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key(), hashes.SHA256())
    (tmp_path / "csr.pem").write_bytes(request.public_bytes(Encoding.PEM))

    said = push("lint", "csr.pem")

    assert said.exit_code == 1
    assert said.output.startswith("is_certificate_request (certificate, private_key): This is a certificate signing")
    assert said.output.count("\n") == 1


def test_service_account_in_a_json_string_is_named(push: Push, tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text(json.dumps(json.dumps(service_account())))

    assert push("lint", "account.json").output.startswith("service_account_is_text (project_account_json_file)")


def test_service_account_next_to_another_file_is_a_usage_error(push: Push, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text(cert_pem())
    (tmp_path / "account.json").write_text(json.dumps(service_account()))

    for files in (("cert.pem", "account.json"), ("account.json", "cert.pem")):
        said = push("lint", *files)
        assert said.exit_code == 2
        assert said.output == "Specify a certificate and its key, one .p12, or one JSON file.\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty."),
        (b"\xef\xbb\xbf \r\n", "file is empty."),
        (b'{\n"type": "service_account",}', "file is not valid JSON: line 2, column 27."),
        (b"[" * 100_000, "file is not valid JSON: it is nested too deeply."),
    ],
    ids=["empty", "white space", "a comma too many", "nested"],
)
def test_unreadable_file_is_named(push: Push, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)

    said = push("lint", "file")

    assert said.exit_code == 2
    assert said.output == f"{message}\n"


def test_missing_file_is_named(push: Push) -> None:
    assert push("lint", "none.p12").output == "none.p12 cannot be read: No such file or directory.\n"


# -- convert --------------------------------------------------------------------------------------------------------


@needs_openssl
def test_bundle_is_converted_to_pem_that_openssl_reads(push: Push, tmp_path: Path) -> None:
    write_bundle(tmp_path / "voip.p12", "keychain")

    said = push("convert", "voip.p12", "--password-file", "-", "--out-dir", "new/out", text=PASSWORD)

    out = tmp_path / "new" / "out"
    assert said.exit_code == 0, said.output
    assert said.output == "Wrote new/out/cert.pem\nWrote new/out/key.pem\n"
    assert (out / "cert.pem").read_text().count("BEGIN CERTIFICATE") == 1
    assert (out / "key.pem").stat().st_mode & 0o077 == 0
    for command in (("x509", "-in", "cert.pem"), ("pkey", "-in", "key.pem", "-check")):
        subprocess.run(["openssl", *command, "-noout"], cwd=out, check=True, capture_output=True)
    assert push("lint", "new/out/cert.pem", "new/out/key.pem").exit_code == 0


def test_service_account_is_converted(push: Push, tmp_path: Path) -> None:
    account = service_account()
    spaced = {**account, "private_key": account["private_key"].replace("\n", " ")}
    (tmp_path / "account.json").write_text(json.dumps(spaced))

    assert push("convert", "account.json", "--out-dir", ".").exit_code == 0

    assert json.loads((tmp_path / "service-account.json").read_text()) == account


@pytest.mark.parametrize("existing", ["cert.pem", "key.pem"])
def test_conversion_replaces_no_file_and_leaves_none(push: Push, tmp_path: Path, existing: str) -> None:
    (tmp_path / "both.pem").write_text(cert_pem() + pem_of(key()))
    out = tmp_path / "out"
    out.mkdir()
    (out / existing).write_text("precious")

    said = push("convert", "both.pem", "--out-dir", "out")

    assert said.exit_code == 2
    assert said.output == f"out/{existing} exists. Remove it, or choose another folder.\n"
    assert [path.name for path in out.iterdir()] == [existing]
    assert (out / existing).read_text() == "precious"


def test_conversion_into_a_file_is_a_usage_error(push: Push, tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text(cert_pem() + pem_of(key()))

    assert push("convert", "both.pem", "--out-dir", "both.pem").exit_code == 2


def test_no_command_prints_the_key(push: Push, tmp_path: Path) -> None:
    secrets = secrets_in({"private_key": pem_of(key())}) + secrets_in({"private_key": pem_of(key(), pkcs8=True)})
    (tmp_path / "both.pem").write_text(cert_pem() + pem_of(key()))
    results: list[Any] = [push("lint", "both.pem", "--json"), push("convert", "both.pem", "--out-dir", ".")]

    assert not [secret for result in results for secret in secrets if secret in result.output]
