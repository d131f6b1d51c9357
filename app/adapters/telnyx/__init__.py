"""The part of Telnyx's REST API that Dialtone uses. The only package that calls api.telnyx.com.

Parsing is lenient in form (unknown fields, times without a zone, `errors` as list or object, a JSON-quoted token), but
required fields must be present. Only the fields named here are read, because every response about a credential contains
its SIP password, and every response about a push credential its private key.

Facts about the API: developers.telnyx.com and Telnyx's OpenAPI description of 2026-07.
"""
