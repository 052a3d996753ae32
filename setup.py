"""Puts the migrations into the wheel. Everything else about the package is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithMigrations(build_py):
    """Copies alembic.ini and alembic/ to `pipelines/migrations` of the built package, where
    `pipelines/migrate.py` looks first. A checkout and an editable install use them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "pipelines" / "migrations"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / "alembic", target / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "alembic.ini", target)


setup(cmdclass={"build_py": BuildWithMigrations})
