"""OAuth 2.0 and OpenID Connect: the endpoints with which applications sign demo users in."""
