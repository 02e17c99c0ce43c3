"""The linear backbone: weighted n-grams and logistic regression, without pretrained weights."""
