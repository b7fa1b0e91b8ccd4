"""Pod network behind one protocol."""
