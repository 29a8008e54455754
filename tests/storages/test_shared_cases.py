"""Optuna's own cases for storages, on what we return."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from optuna_kd.storages import create_storage


class TestSQLite(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return create_storage(f"sqlite:///{tmp_path / 'kd.db'}")


class TestPostgreSQL(StorageTestCase):
    @pytest.fixture
    def storage(self, postgres: str) -> BaseStorage:
        return create_storage(postgres)


class TestJournal(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return create_storage(f"journal:///{tmp_path / 'kd.log'}")
