"""The module path that is this program's alone. `pipelines` and `models` are common names: a folder of that
name next to a user's own definitions would hide ours.
"""
