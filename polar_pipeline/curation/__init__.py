"""Curation: synthetic posts are cleaned, filtered and deduplicated; every row stays in the table with the reason for its fate."""
