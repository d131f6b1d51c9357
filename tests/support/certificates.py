"""A private certificate authority, and a TLS server certificate of this machine that it has signed."""

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

OTHER_NAME = "id.internal.example"
"""A name of the server that only a proxy of the tests resolves."""


@dataclass(frozen=True)
class CertificateAuthority:
    pem: str
    server: ssl.SSLContext
    """The context of a server on this machine."""
    server_key: str
    server_certificate: str


@cache
def certificate_authority(
    name: str = "private", *, days: tuple[int, int] = (-1, 1), host: str = "localhost", is_self_signed: bool = False
) -> CertificateAuthority:
    """`days` from now: when the server's certificate begins and ends. `is_self_signed`: no CA has signed it."""
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    root = (
        _builder(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName(host), x509.DNSName(OTHER_NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _builder(own, own if is_self_signed else authority, server_key, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(server_key if is_self_signed else authority_key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = certificate.public_bytes(Encoding.PEM)
        path.write_bytes(private + public)
        context.load_cert_chain(path)
    return CertificateAuthority(root.public_bytes(Encoding.PEM).decode(), context, private.decode(), public.decode())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int] = (-1, 1)
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )
