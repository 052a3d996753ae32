"""How access tokens are obtained, verified, stored and refreshed. A refresh token works once: see
`token_source.py`. No token leaves this package but through the protocol in `amocrm/credentials.py`.
"""
