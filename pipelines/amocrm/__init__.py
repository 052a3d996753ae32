"""All that would change if amoCRM changed its HTTP manners: session, authorization, rate budget, retries, pages. Knows no entity."""
