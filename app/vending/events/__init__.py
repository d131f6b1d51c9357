"""Events that backends receive by webhooks: what they contain, which endpoints get them, and their delivery."""
