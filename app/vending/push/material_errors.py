"""Faults of push material: a stable code for each, and a message that says how to fix it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from app.vending.push.models import PushMaterial

FAULT_MESSAGES: Mapping[str, str] = MappingProxyType(
    {
        "material_too_large": "The material is too large for a certificate, key or service account. Send nothing else.",
        "fields_swapped": "The certificate and the private key are swapped. Exchange the two fields.",
        "is_certificate": "This is a certificate, not a private key. Send the private key that belongs to it.",
        "is_private_key": "This is a private key, not a certificate. Send the certificate that Apple issued for it.",
        "is_public_key": "This is a public key. Send the certificate and the private key.",
        "is_certificate_request": "This is a certificate signing request. Upload it in Apple's developer account, and "
        "send the certificate that Apple issues, with its private key.",
        "is_pkcs7": "This is a PKCS #7 file, such as a .p7b or a provisioning profile. Send the certificate that Apple "
        "issued, with its private key.",
        "is_p12": "This is a .p12 bundle. Convert it with dialtone push convert voip.p12, or with openssl pkcs12 "
        "-legacy -in voip.p12 -nodes -out voip.pem.",
        "is_p8_token_key": "This is a .p8 token key, which Telnyx does not accept. Create a VoIP Services certificate "
        "for the app in Apple's developer account.",
        "is_der": "This is binary DER. Convert it to PEM: openssl x509 -inform der -in voip.cer -out cert.pem for a "
        "certificate, openssl pkey -inform der -in key.der -out key.pem for a key.",
        "pem_boundaries_missing": "This is base64 without the BEGIN and END lines of PEM. Add the lines, or export the "
        "file again as PEM.",
        "is_base64_of_pem": "This is a file in base64. Decode it once: base64 -d.",
        "certificate_unreadable": "This is not a PEM certificate. Export it again, from BEGIN to END CERTIFICATE.",
        "certificate_chain": "There is more than one certificate of the app. Send only the one to use.",
        "private_key_unreadable": "This is not a PEM private key. Export it again, from BEGIN to END PRIVATE KEY.",
        "private_key_encrypted": "The private key is encrypted. Remove the passphrase: openssl rsa -in key.pem -out "
        "plain.pem.",
        "private_key_weak": "The private key is shorter than 2048 bits. Create a new one.",
        "key_mismatch": "The private key does not match the certificate. Export both from the same keychain entry.",
        "certificate_not_voip": "The certificate is not valid for VoIP pushes. Create a VoIP Services certificate.",
        "bundle_id_missing": "The certificate has no bundle ID. Create it again in Apple's developer account.",
        "certificate_expired": "The certificate has expired. Renew it in Apple's developer account.",
        "certificate_not_yet_valid": "The certificate is not valid yet. Check its start date and this server's clock.",
        "service_account_is_text": "The service account must be the JSON object of Google's file, not text or a list.",
        "is_server_key": "This is a legacy server key. Create a service account key in Firebase (Service accounts).",
        "is_google_services_json": "This is the app's google-services.json. Create a service account key in Firebase.",
        "is_oauth_client": "These are OAuth client credentials. Create a service account key in Firebase.",
        "is_registration_request": "This is the body of a registration. Use the files of Apple or Google.",
        "service_account_wrong_type": "The type is not service_account. Create a service account key in Firebase.",
        "project_id_missing": "The service account has no project_id. Download its key again.",
        "client_email_missing": "The service account has no client_email. Download its key again.",
        "service_account_key_unreadable": "The service account's private_key cannot be read. Download its key again.",
        "token_uri_not_google": "token_uri must be https://oauth2.googleapis.com/token. Download the key again.",
    }
)


@dataclass(frozen=True, slots=True)
class MaterialFault:
    """One fault and the field that has it."""

    code: str
    field: str

    @property
    def message(self) -> str:
        return FAULT_MESSAGES[self.code]


@dataclass(frozen=True, slots=True)
class MaterialReport:
    """Result of checking push material. Valid material has no faults."""

    material: PushMaterial | None
    faults: tuple[MaterialFault, ...] = ()

    def days_left(self, now: datetime) -> int | None:
        """Whole days until expiry; None if the material does not expire or cannot be read."""
        if self.material is None or self.material.not_after is None:
            return None
        return (self.material.not_after - now).days
