"""Synthetic posts: asked of an endpoint and paid for once, made offline from real posts, or read from a file."""
