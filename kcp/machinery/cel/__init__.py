"""The Common Expression Language. Nothing is built here yet."""
