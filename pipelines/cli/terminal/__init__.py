"""The terminal, or what stands in for it: streams that may be closed, full or not UTF-8, and Ctrl-C."""
