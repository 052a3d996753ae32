"""Tables as the pipeline sees them, derived from `models/`: which JSON value becomes which COPY cell, and
which columns refer to which table. No SQL runs here, and nothing here knows an entity.
"""
