"""The linear backbone: n-grams weighted by how much they say about the label, and logistic regression. No pretrained weights."""
