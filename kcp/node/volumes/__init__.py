"""Volumes behind one protocol."""
