"""The encoder backbone: embeddings of a frozen pretrained encoder, and a head per language."""
