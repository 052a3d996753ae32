"""Dashboards over the marts: one declaration of pages and tiles (`spec.py`, `pages/`), the SQL of each tile,
and the report, one HTML file made of it. Whatever else draws these dashboards is generated from the same
declaration.
"""
