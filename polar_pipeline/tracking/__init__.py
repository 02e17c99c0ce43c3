"""Tracking: an MLflow run per step, under a parent run per pipeline run and language."""
