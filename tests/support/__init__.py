"""Support for several test modules: servers on real sockets, tokens, key material, load, and assertions."""
