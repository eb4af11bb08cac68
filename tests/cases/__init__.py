"""The corpus by room: each module has CASES, tests/corpus.py runs them all."""
