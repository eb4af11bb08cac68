"""What `make mutants` is made of."""
