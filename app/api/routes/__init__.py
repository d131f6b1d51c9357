"""HTTP routes, with one router per resource. Each parses a request, calls one domain function and builds a response."""
