"""Findings: the claims of papers, one room a family."""
