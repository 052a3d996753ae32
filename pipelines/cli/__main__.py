"""`python -m pipelines.cli` is `amocrm-mirror`."""

from pipelines.cli.app import main

if __name__ == "__main__":
    main()
