"""The dashboards for other tools: files made of the declaration of pages and tiles (`targets.py` names the
tools). Nothing here draws; each module turns a tile into what its tool reads.
"""
