"""Environment variables that configure a service."""

MINIMAL_ENVIRONMENT = {
    "TELNYX_API_KEY": "KEY_SECRET_CANARY",
    "TELNYX_CONNECTION_ID": "1293384261075731499",
    "DIALTONE_ISSUER": "https://id.example.com",
    "DIALTONE_AUDIENCE": "dialtone",
}
