"""What several test modules use: servers on real sockets, tokens, key material, load, and assertions."""
