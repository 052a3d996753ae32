"""A local imitation of amoCRM: one process that answers the REST API v4 the way the real service does.

Reading order: `account/lists.py` (the list endpoints: limits, filters, rights), `account/store.py` (records
at rest), `api/listing.py` and `api/filters.py` (how a list request is answered), `api/app.py` (the order of
faults, limits, rights and routes for a request), `control_plane.py` (how a test steers the sandbox),
`dataset/` (the imitated company's data).
"""
