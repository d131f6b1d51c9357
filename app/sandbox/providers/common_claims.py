"""Claims and values that several providers share."""

from app.sandbox.provider import Claims

API, OTHER_API = "https://phones.example.com", "https://billing.example.com"
OPAQUE = "opaque-refresh-token"
ID: Claims = {"nonce": "n-0S6_WzA2Mj", "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}
OTHER_ISSUER: Claims = {"iss": "https://other.example.com"}
