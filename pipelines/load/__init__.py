"""The only package that writes mirror rows: COPY → stage → upsert, children by set difference, tombstones,
hints, cursor and notification, in one transaction per batch (`loader.py`). Decides nothing about what to
read.
"""
