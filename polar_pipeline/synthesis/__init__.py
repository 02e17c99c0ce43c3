"""Synthetic posts: asked of an OpenAI-style endpoint, paid for once, or made offline from real ones. Knows posts, not models."""
