"""A model in memory: loading, and where its residual stream is."""
