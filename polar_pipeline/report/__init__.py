"""Evidence: what the decisions are worth, measured and shown."""
