"""The command `amocrm-mirror`: parse, call, print. One file per group of commands, each with its own
`typer.Typer`; `app.py` joins them. Nothing else in `pipelines/` prints.
"""
