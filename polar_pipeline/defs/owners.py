"""Who answers for the assets in the UI."""

OWNERS = ["team:polar-pipeline"]
