"""The pages, a module each: which tiles they show. `all.py` holds them in order."""
