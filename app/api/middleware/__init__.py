"""ASGI middleware, one a file. Outside in: load shedding, context, CORS, errors, limits, auth, body."""
