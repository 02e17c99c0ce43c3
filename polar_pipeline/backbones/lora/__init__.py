"""Pretrained models with an adapter per language, or fine-tuned whole: loading, training, scoring, the backbone."""
