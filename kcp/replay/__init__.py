"""Re-makes decisions from a log, or runs a made-up cluster from a seed, and compares."""
