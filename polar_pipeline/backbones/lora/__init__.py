"""Pretrained models with one adapter per language: loading, batches, training, scoring, and the backbone that they make."""
