"""Files are there complete, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from optuna_kd.files import remove, write_whole


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "a.txt"
    write_whole(file, "old")
    write_whole(file, b"newer")
    assert file.read_text() == "newer"

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as writing:
            writing.write(content[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match=rf"\[Errno 28\] No space left on device: '{file}'$"):
            write_whole(file, "newest")
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("a.txt", "newer")]


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match=rf"'{tmp_path}/b'"):
        write_whole(tmp_path / "b", b"never")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_was_left_by_whoever_was_killed_while_writing_goes_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trial-[1].ckpt"
    write_whole(file, b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )  # nothing cleans up after it
        with pytest.raises(KeyboardInterrupt):
            write_whole(file, b"half")
    write_whole(tmp_path / "trial-[1].ckpt2", b"another")
    assert len(list(tmp_path.iterdir())) == 3
    remove(file)
    remove(file)
    assert [path.name for path in tmp_path.iterdir()] == ["trial-[1].ckpt2"]
