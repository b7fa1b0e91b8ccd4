"""Container runtimes behind one protocol."""
