"""Everything that would change if amoCRM changed its HTTP behaviour: session, rate limit, retries, responses,
pagination. Knows no entity and no token store: access tokens come through the protocol in
`credentials.py`.
"""
