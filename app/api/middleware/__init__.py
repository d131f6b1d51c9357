"""ASGI middleware, one per file. From the outermost: load shedding, context, CORS, errors, limits, auth, body."""
