"""Truth: the direction that tells true from false, its probes and its steering."""
