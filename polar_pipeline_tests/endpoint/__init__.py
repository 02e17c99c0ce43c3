"""Tests, file by file as in the package."""
