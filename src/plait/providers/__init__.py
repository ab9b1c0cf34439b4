"""Providers: one file for each wire format, one for HTTP, and the wrappers around them."""
