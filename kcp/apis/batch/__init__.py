"""The batch group's kinds."""
