"""A run's head as one file for other programs, which need neither this package nor torch."""
