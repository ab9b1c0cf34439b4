"""Guardrails: checks of what goes into a run, comes out of it, or is done by its tools, and marks on others' words."""
