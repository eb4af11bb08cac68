"""Structure: what the change of the weights is made of."""
