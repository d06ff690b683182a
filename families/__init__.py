"""Model families on top of `model.py`, and the registry of all of them."""
