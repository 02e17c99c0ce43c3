"""Evidence: the decisions measured, as a page, as files and as a submission."""
