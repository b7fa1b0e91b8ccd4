"""What every request passes, in the order of chain.py."""
