"""CSI's control side, the drivers we ship, storage operators. Nothing is built here yet."""
