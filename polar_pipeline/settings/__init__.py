"""How a task is solved: the profile, a file per section, and how YAML becomes validated settings."""
