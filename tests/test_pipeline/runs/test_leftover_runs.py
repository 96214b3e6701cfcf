"""What kills left behind for a day goes away; what is anybody's own, younger, or in use stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from featurecache.runs.leftover_runs import sweep_runs
from featurecache.runs.work_folder import heal, working

DAYS = 86400
RUN = {"results.json": json.dumps({"format": 1, "heads": []}), "log.txt": "old", "heads/b--h/head.json": "old"}
WORK = ".run-0123456789abcdef"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """data/runs of a working folder, with a run in it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "runs" / "digits", RUN)
    return tmp_path / "data" / "runs"


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def age(folder: Path, days: float = 2.0) -> None:
    then = time.time() - days * DAYS
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then), follow_symlinks=False)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def leave_everything(root: Path) -> set[str]:
    """One of each kind of left-over, for runs called digits."""
    before = names(root)
    write(
        root / WORK, {"lock": "", "heads/b--h/record.json": "", "heads/.0123/head/head.json": "", "fresh/log.txt": ""}
    )
    write(root / ".run-fedcba9876543210-2", {"lock": ""})
    write(root / ".run-probe-77", {})
    write(root / ".digits.reserved", {})
    (root / ".latest-77").symlink_to("digits")
    write(root, {".finetune-0123456789abcdef.pt-77": "half"})
    (root / ".writing-0123456789abcdef-latest").symlink_to("digits")
    write(root, {".writing-0123456789abcdef-.finetune-0123456789abcdef.pt": "half"})
    write(root / ".run-0000000000000000", {"lock": "", ".writing-0123456789abcdef-into.json": "half"})
    write(root / ".digits-ab_12cd3", RUN)
    write(root / ".digits-ab_12cd4", {})
    write(root / ".digits-old-ab_12cd3", {f"run/{name}": text for name, text in RUN.items()})
    write(root / "digits", {".report.html-77": "half", ".writing-0123456789abcdef-audit.json": "half"})
    return names(root) - before


def test_what_kills_left_for_a_day_is_removed(root):
    left = leave_everything(root)
    age(root)
    assert {path.name for path in sweep_runs(root / "digits")} == left | {
        ".report.html-77",
        ".writing-0123456789abcdef-audit.json",
    }
    assert names(root) == {"digits"}
    assert names(root / "digits") == {"results.json", "log.txt", "heads"}


def test_what_is_younger_stays(root):
    left = leave_everything(root)
    age(root, 0.9)
    assert sweep_runs(root / "digits") == []
    assert names(root) == left | {"digits"}


def test_a_work_folder_in_use_or_on_its_way_stays(root):
    (root / "digits" / "results.json").unlink()
    note = {"into": "digits", "files": list(RUN), "replaces": True}
    write(
        root / WORK, {"lock": "", "into.json": json.dumps(note)} | {f"fresh/{name}": text for name, text in RUN.items()}
    )
    with working(root, "f" * 16) as work:
        write(work.heads / "b--h", {"record.json": ""})
        age(root)
        assert sweep_runs(root / "digits") == []
    heal(root / "digits")
    assert json.loads((root / "digits" / "results.json").read_text())
    assert names(root) == {"digits", work.path.name}


MINE = {
    ".run-0123456789abcdef": {"lock": "", "notes.txt": "mine"},
    ".run-mine": {"lock": ""},
    ".digits.reserved": {"notes.txt": "mine"},
    ".run-probe-77": {"notes.txt": "mine"},
    ".digits-settings": {"config.json": "mine", "notes.txt": "mine"},
    ".digits-old-ab_12cd3": {"run/log.txt": "mine", "notes.txt": "mine"},
    ".finetune-0123456789abcdef.pt": {},
    "digits-ab_12cd3": RUN,
    ".cache": {"x": "mine"},
    ".digits-whatever": {"config.json": "mine"},
}


def test_what_is_the_users_own_stays(root):
    for name, files in MINE.items():
        write(root / name, files)
    write(root, {".latest": "mine", ".finetune-state.pt-77": "mine"})
    before = sorted(root.rglob("*"))
    age(root)
    assert sweep_runs(root / "digits") == []
    assert sorted(root.rglob("*")) == before


def test_beside_a_run_elsewhere_only_what_has_its_name_is_looked_at(tmp_path):
    write(tmp_path / "digits", RUN)
    write(tmp_path / ".digits-ab_12cd3", RUN)
    write(tmp_path / ".myapp-settings", {"config.json": "mine"})
    age(tmp_path)
    assert [path.name for path in sweep_runs(tmp_path / "digits")] == [".digits-ab_12cd3"]
    assert names(tmp_path) == {"digits", ".myapp-settings"}


def test_a_run_that_a_former_version_was_about_to_replace_is_put_back(root):
    write(root / ".mnist-old-ab_12cd3", {f"run/{name}": text for name, text in RUN.items()})
    age(root)
    sweep_runs(root / "digits")
    assert names(root) == {"digits", "mnist"}
    assert names(root / "mnist") == {"results.json", "log.txt", "heads"}


def test_work_folders_in_a_mounted_folder_are_swept_too(tmp_path):
    write(tmp_path / "out", RUN)
    write(tmp_path / "out" / WORK, {"lock": "", "heads/b--h/record.json": ""})
    age(tmp_path)
    assert [path.name for path in sweep_runs(tmp_path / "out")] == [WORK]
    assert names(tmp_path / "out") == {"results.json", "log.txt", "heads"}
