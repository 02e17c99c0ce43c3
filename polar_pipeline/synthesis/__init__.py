"""Synthetic posts: asked of an OpenAI-style endpoint and paid for once, or made offline from real posts."""
