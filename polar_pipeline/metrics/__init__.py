"""Measures of scores and decisions, and their uncertainty. numpy and scikit-learn only."""
