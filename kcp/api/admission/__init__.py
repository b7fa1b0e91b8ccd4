"""Admission: the plugin protocol, the order as one table, one file per plugin."""
