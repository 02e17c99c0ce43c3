"""Do synthetic posts help, and how many of them? Training with and without them decides each language's share."""
