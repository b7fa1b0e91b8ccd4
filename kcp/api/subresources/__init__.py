"""One file per family of subresources."""
