"""Training: the only door to learning, for every estimator of this package."""
