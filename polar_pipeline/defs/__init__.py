"""Dagster only: the stages as software-defined assets, and what runs them.

One module per Dagster concept. Nothing here computes; every asset body calls one function of a stage.
"""
