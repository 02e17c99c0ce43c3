"""Measures of scores and decisions, and their uncertainty. numpy only."""
