"""`owner` comes back where it was removed under a running server."""

import shutil

import pytest

from app.settings import SettingsError
from app.storage.data_dir_owner import DataDirOwner


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def remove_file(folder):
    (folder / "owner").unlink()


def remove_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()  # as the spool does


def replace_by_an_empty_file(folder):
    remove_file(folder)
    (folder / "owner").touch()


@pytest.mark.parametrize("lose", [remove_file, remove_folder, replace_by_an_empty_file])
def test_an_owner_that_was_removed_comes_back_and_keeps_others_away(folder, lose):
    owner, second_worker = DataDirOwner(folder, "one"), DataDirOwner(folder, "one")
    owner.claim(0)
    second_worker.claim(0)
    lose(folder)
    owner.look_after()
    second_worker.look_after()
    assert (folder / "owner").read_text() == "one\n"
    with pytest.raises(SettingsError, match="in use by a server whose events go to one"):
        DataDirOwner(folder, "other").claim(0)


def test_a_folder_that_another_store_took_meanwhile_is_claimed_as_soon_as_that_one_ends(folder):
    owner, other = DataDirOwner(folder, "one"), DataDirOwner(folder, "other")
    owner.claim(0)
    remove_file(folder)
    other.claim(0)
    owner.look_after()
    owner.look_after()
    assert (folder / "owner").read_text() == "other\n"
    remove_file(folder)
    owner.look_after()
    assert (folder / "owner").read_text() == "one\n"


def test_a_folder_that_is_gone_or_a_file_is_no_error(folder):
    owner = DataDirOwner(folder, "one")
    owner.claim(0)
    shutil.rmtree(folder)
    owner.look_after()
    folder.write_text("a file where a folder belongs")
    owner.look_after()
    folder.unlink()
    folder.mkdir()
    owner.look_after()
    assert (folder / "owner").read_text() == "one\n"
