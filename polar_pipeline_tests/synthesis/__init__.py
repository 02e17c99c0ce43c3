"""Tests of synthetic posts."""
