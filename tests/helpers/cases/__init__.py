"""The corpus by room: each module has CASES, tests/helpers/corpus.py runs them all."""
