"""Superset's YAML: a database, a dataset for each mart and each list, a chart for each tile, a dashboard for
each page. `bundle.py` puts them together.
"""
