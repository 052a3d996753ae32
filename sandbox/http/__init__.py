"""The HTTP/1.1 server, PHP query strings, rate limits and fault injection: what happens to a request before
and after the API.
"""
