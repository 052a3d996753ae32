"""Files for a dbt project: sources with every description, data tests and freshness, and the report's pages
as exposures. Made from the dictionary and from the declaration of the pages.
"""
