"""One file per built-in admission plugin."""
