"""Which requests to send for a list, and when a list has been read completely. Yields steps: a page, and the
cursor that holds once that page is loaded. Writes nothing, and turns no record into rows.
"""
