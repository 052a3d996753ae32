"""A local amoCRM: one process that answers the REST API v4 the way the real service does.

Read in this order: `lists` (what is listed, with which limits, filters and rights), `store` (how records
are kept), `listing` and `selection` (how a list is answered), `app` (the order in which a request meets
faults, limits, rights and routes), `control` (how a test steers it), `world` (the company it imitates).
"""
