"""Backbones: what is trained on kept posts and gives every post a logit. One protocol, one module or folder each."""
