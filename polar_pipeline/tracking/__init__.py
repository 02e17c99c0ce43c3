"""Tracking: one MLflow run per asset, partition and attempt, and a null tracker with the same face beside it."""
