"""HTTP in. Layers guard, routes translate, `problems.py` knows the status codes; nothing here decides."""
