"""Who is asking, and may they: authenticators and authorizers."""
