"""Greedy replies of a checkpoint under interventions: one protocol, through transformers or through vLLM."""
