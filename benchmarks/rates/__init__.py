"""What `python benchmarks/error_rates.py` measures, a table a module."""
