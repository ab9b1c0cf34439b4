"""What plait costs, measured beside a hand-written loop in the same run: ``make bench``.

Nothing of it is installed with plait. `goals` says what is measured and what it may cost, `__main__` runs it.
"""
