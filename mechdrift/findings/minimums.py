"""What must be there for a mechanism to be compared, where several families ask for the same."""

ACCURACY_MINIMUM = 0.70
"""The lower end of the 90% interval must be over it: a fall by the ten points that the shipped limits allow would otherwise end
at chance, and there would be nothing to lose."""
STRENGTH_MINIMUM = 3.0
"""Squared length of a direction or a map, in standard errors (U / SE): under it there is nothing to compare."""
FALLING_OUT = 0.20
"""Share of the items: where more are lost in post alone, what is left is a selection."""
