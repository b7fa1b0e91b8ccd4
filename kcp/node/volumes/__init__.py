"""What a container finds in its volumes."""
