"""The dictionary: what every table, view and column is, where it comes from, and how the tables hang together.

    models ──▶ facts ──▶ page (HTML) · markdown · diagram (SVG)
    database ──▶ what this account adds: rows, views for people, custom fields

Nothing here is written by hand: the words are the models' comments, which are the database's as well.
"""
