"""The suites: one test a claim, one file a family. `pytest --base X --post Y` collects this folder."""
