"""Record → rows, and back. Pure functions, driven by the declaration and the column types, never by an
entity's name. No I/O.
"""
