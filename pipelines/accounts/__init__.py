"""The accounts of this database (mirror.accounts): which there are, whether amoCRM and people let them be
synced, how to reach one.
"""
