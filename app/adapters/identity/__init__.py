"""The company's identity provider: whether a token is good, and whose it is. The only room that imports python-jose."""
