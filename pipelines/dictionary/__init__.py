"""The data dictionary: every table, view and column, its meaning, its source in the API, and the references
between tables.

    models ──▶ dictionary ──▶ page (HTML) · markdown · diagram (SVG)
    database ──▶ what this account adds: row counts, BI views, custom fields

No text is written here by hand: the texts are the comments of the models, which are the database's comments,
too.
"""
