"""Curation: synthetic posts are cleaned, filtered and deduplicated. Rows are flagged with a reason, never removed."""
