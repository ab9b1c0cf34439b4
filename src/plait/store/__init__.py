"""Stores: where the logs of threads live."""
