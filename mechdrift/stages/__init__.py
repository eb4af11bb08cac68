"""Which training stage is responsible: post without one of them, and what that says of a drift."""
