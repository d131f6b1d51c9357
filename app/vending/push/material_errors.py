"""What can be wrong with push material: a stable code for each, and one sentence on how to mend it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from app.vending.push.models import PushMaterial

FAULT_MESSAGES: Mapping[str, str] = MappingProxyType(
    {
        "material_too_large": "This is larger than a certificate, a key or a service account ever is; send only that.",
        "fields_swapped": "Certificate and private key stand in each other's place; swap them.",
        "is_p12": "This is a .p12 bundle; split it: openssl pkcs12 -in voip.p12 -clcerts -nokeys -out cert.pem, then "
        "openssl pkcs12 -in voip.p12 -nocerts -nodes -out key.pem.",
        "is_p8_token_key": "This is a .p8 token key, which Telnyx does not take; make a VoIP Services certificate for "
        "the app in Apple's developer account.",
        "is_der": "This is binary DER; convert it: openssl x509 -inform der -in voip.cer -out cert.pem.",
        "certificate_unreadable": "This is no certificate in PEM; export it anew, from BEGIN to END CERTIFICATE.",
        "certificate_chain": "There is more than one certificate; send only the app's own, without Apple's.",
        "private_key_unreadable": "This is no private key in PEM; export it anew, from BEGIN to END PRIVATE KEY.",
        "private_key_encrypted": "The private key is encrypted; take the passphrase off: openssl rsa -in key.pem -out "
        "plain.pem.",
        "private_key_weak": "The private key is shorter than 2048 bits; make a new one.",
        "key_mismatch": "The private key is not the certificate's; export both from the same entry of the keychain.",
        "certificate_not_voip": "The certificate is not for VoIP pushes; make a VoIP Services certificate.",
        "bundle_id_missing": "The certificate names no bundle id; make it anew in Apple's developer account.",
        "certificate_expired": "The certificate has expired; renew it in Apple's developer account.",
        "certificate_not_yet_valid": "The certificate is not valid yet; check the date on it, and this server's clock.",
        "service_account_is_text": "The service account must be the JSON object itself, not a text that holds it.",
        "is_server_key": "This is a legacy server key; make a service account key in Firebase, under Service accounts.",
        "is_google_services_json": "This is google-services.json of the app; make a service account key in Firebase.",
        "is_oauth_client": "These are OAuth client credentials; make a service account key in Firebase.",
        "service_account_wrong_type": "This is not of type service_account; make a service account key in Firebase.",
        "project_id_missing": "The service account names no project_id; download its key anew.",
        "client_email_missing": "The service account has no client_email; download its key anew.",
        "service_account_key_unreadable": "The service account's private_key cannot be read; download its key anew.",
        "token_uri_not_google": "token_uri must be https://oauth2.googleapis.com/token; download the key anew.",
    }
)


@dataclass(frozen=True, slots=True)
class MaterialFault:
    """One thing that is wrong, and in which field."""

    code: str
    field: str

    @property
    def message(self) -> str:
        return FAULT_MESSAGES[self.code]


@dataclass(frozen=True, slots=True)
class MaterialReport:
    """What a look at material found. Good material has no faults."""

    material: PushMaterial | None
    faults: tuple[MaterialFault, ...] = ()

    def days_left(self, now: datetime) -> int | None:
        """Whole days until it expires; None for what does not, or cannot be read."""
        if self.material is None or self.material.not_after is None:
            return None
        return (self.material.not_after - now).days
