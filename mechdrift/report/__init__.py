"""What is shown: everything here is rendered from rows and records, nothing is computed."""
