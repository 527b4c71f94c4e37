"""Metrics, the schema of results, and pictures of predictions."""
