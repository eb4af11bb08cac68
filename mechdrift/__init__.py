"""Compare two checkpoints of a language model from the inside: which mechanisms held, which drifted."""
