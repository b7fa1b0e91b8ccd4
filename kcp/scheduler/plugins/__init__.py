"""One file per scheduler plugin."""
