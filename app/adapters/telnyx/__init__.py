"""Telnyx's REST API, as far as Dialtone needs it: the only room that calls api.telnyx.com.

Replies are parsed leniently (unknown fields, times without a zone, `errors` as list or object, a JSON-quoted token) and
judged strictly: what we need must be there. Nothing but the fields named here is read, because every answer about a
credential holds its SIP password, every one about a push credential its private key.

Facts about the API: developers.telnyx.com and Telnyx's OpenAPI description of 2026-07.
"""
