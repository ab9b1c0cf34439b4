"""The tables of a store, and how a file made by an older version becomes one of this version."""
