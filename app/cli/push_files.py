"""Files with push material: reads PEM, DER, .p12 and Google's JSON, and writes the canonical form."""

import codecs
import json
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from app.adapters.pem import PemBlock, blocks, decoded
from app.adapters.push_validation import apns, binary, fcm
from app.cli.output import end
from app.vending.push.material_errors import MaterialReport
from app.vending.push.models import PushMaterial, PushType

MAX_FILE_BYTES = 1024 * 1024


def read_material(paths: list[Path], password_source: str | None, now: datetime) -> MaterialReport:
    """The validated material of the files. Exits 2 if they cannot be read."""
    contents = [_material(path) for path in paths]
    if password_source is not None and not any(map(binary.is_pfx, contents)):
        end("--password-file is the password of a .p12, and no file is one.", 2)
    password = None if password_source is None else _password(password_source)
    texts = [_text(path, content, password) for path, content in zip(paths, contents, strict=True)]
    is_json = any(map(_is_json, texts))
    if len(texts) > (1 if is_json else 2):
        end("Specify a certificate and its key, one .p12, or one JSON file.", 2)
    if is_json:
        return _service_account(paths[0], texts[0])
    certificate, private_key = texts[0], texts[-1]
    if not _has_certificate(certificate) and _has_certificate(private_key):
        certificate, private_key = private_key, certificate
    report = apns.validate(certificate, private_key, now)
    if len(texts) == 1 and not any(fault.code == "is_p8_token_key" for fault in report.faults):
        _check_has_pair(paths[0], blocks(texts[0]))
    return report


def write_material(material: PushMaterial, folder: Path) -> list[Path]:
    """Write the files that `read_material` takes, the key readable by its owner only. Exits 2 if a file exists."""
    if material.type is PushType.IOS:
        files = {"cert.pem": material.upload["certificate"], "key.pem": material.upload["private_key"]}
    else:
        files = {"service-account.json": json.dumps(material.upload[fcm.FIELD], indent=2) + "\n"}
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        _remove(written)
        if isinstance(error, FileExistsError):
            end(f"{error.filename} exists. Remove it, or choose another folder.", 2)
        end(f"{error.filename or folder} cannot be written: {error.strerror or type(error).__name__}.", 2)
    return written


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _material(path: Path) -> bytes:
    """The content of a file that is not empty. Base64 is decoded: secrets of CI are text, so a .p12 is stored in it."""
    content = _bytes(path)
    text = content.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        end(f"{path} is empty.", 2)
    raw = decoded(text.decode("ascii")) if text.isascii() else b""
    return raw if binary.is_binary(raw) or b"-----BEGIN" in raw else content


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        end(f"{path} cannot be read: {error.strerror or type(error).__name__}.", 2)
    if len(content) > MAX_FILE_BYTES:
        end(f"{path} is too large for push material.", 2)
    return content


def _password(source: str) -> bytes:
    """The first line of a file or of standard input. A password may be empty, and may contain spaces."""
    content = sys.stdin.buffer.read(MAX_FILE_BYTES) if source == "-" else _bytes(Path(source))
    return content.removeprefix(codecs.BOM_UTF8).split(b"\n")[0].removesuffix(b"\r")


def _text(path: Path, content: bytes, password: bytes | None) -> str:
    """The text of a file, which is PEM if the file is binary."""
    try:
        converted = binary.to_pem(content, password) if binary.is_binary(content) else None
    except binary.BundleLocked:
        if password is None:
            end(f"{path} needs its password: use --password-file FILE, or --password-file - for standard input.", 2)
        end(f"{path} cannot be opened: the password is wrong, or the file is damaged.", 2)
    if converted is not None:
        return converted
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Windows PowerShell writes
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _is_json(text: str) -> bool:
    """True for an object, a list, and text in quotes that contains one."""
    return text.lstrip().removeprefix('"').startswith(("{", "["))


def _service_account(path: Path, text: str) -> MaterialReport:
    try:
        given: Any = json.loads(text)
    except json.JSONDecodeError as error:
        end(f"{path} is not valid JSON: line {error.lineno}, column {error.colno}.", 2)
    except RecursionError:
        end(f"{path} is not valid JSON: it is nested too deeply.", 2)
    return fcm.validate(given)


def _check_has_pair(path: Path, found: list[PemBlock]) -> None:
    has_certificate = any(block.is_certificate for block in found)
    has_key = any(block.is_private_key for block in found)
    if has_certificate != has_key:
        missing = "private key" if has_certificate else "certificate"
        end(f"{path} has no {missing}. Export both together, or specify a second file.", 2)


def _has_certificate(text: str) -> bool:
    return any(block.is_certificate for block in blocks(text))
