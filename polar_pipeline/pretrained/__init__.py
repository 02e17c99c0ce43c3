"""Pretrained models: where they are, which weights they have, and texts embedded with them."""
