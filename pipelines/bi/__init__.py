"""Views for people: wide views and marts. Derived, rebuilt when their definition changes, never migrated.
Queries are files in `sql/`; a mart is one file there.
"""
