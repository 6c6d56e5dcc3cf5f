"""One day of a grid and its markets, end to end."""
