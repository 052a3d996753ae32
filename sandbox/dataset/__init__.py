"""A plausible company's data: account, users, pipelines, deals, contacts, tasks, catalogs, and edge cases.
`build.py` builds all of it from a seed, a scale and a moment.
"""
