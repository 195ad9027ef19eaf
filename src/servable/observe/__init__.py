"""Observers of the request path: metrics and logs."""
