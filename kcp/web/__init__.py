"""Pages over history and the live system, read-only. Nothing is built here yet."""
