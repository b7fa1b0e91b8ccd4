"""The apps group's kinds."""
