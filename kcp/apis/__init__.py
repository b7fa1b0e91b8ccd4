"""What each built-in kind is: one row in `catalog.py`, one file for what is special about it. Pure, no I/O."""
