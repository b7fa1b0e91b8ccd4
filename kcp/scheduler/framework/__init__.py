"""Extension points, profiles' runtime, status codes."""
