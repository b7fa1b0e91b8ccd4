"""The core group's kinds."""
