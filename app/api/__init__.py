"""The HTTP API: middleware, routes and schemas. Decisions are made in the domain (`app/vending`)."""
