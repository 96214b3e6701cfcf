"""What the project promises about its own code: rooms, start-up, words for machines, README."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_the_import_contract_holds():
    lint = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("package", ["extract", "classify", "pipeline", "pipeline.cli"])
def test_importing_a_package_imports_nothing_heavy(package):
    program = f"import sys, {package}; print([m for m in ('torch', 'sklearn', 'h5py', 'numpy') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_nothing_is_ever_unpickled():
    for path in [*ROOT.glob("extract/**/*.py"), *ROOT.glob("classify/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        source = path.read_text()
        # weights.py names pickle.UnpicklingError, which torch raises when it refuses.
        assert not re.search(r"pickle\.(load|loads|Unpickler)\b|\b(import|from) (joblib|dill)\b", source), path
        for call in re.findall(r"torch\.load\([^)]*\)", source):
            assert "weights_only=True" in call, path


def readme_commands() -> list[str]:
    """Every line of the README's console blocks that a reader would type."""
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", README.read_text(), re.S)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("featurecache ", "make"))]


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_in_the_readme_is_one_that_exists(line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        variables = [word.split("=")[0] for word in words[1:] if "=" in word]
        assert all(re.search(rf"^{name} +\?=", makefile, re.M) for name in variables)
    else:
        from pipeline.grammar import build_parser

        build_parser().parse_args(words[1:])


def test_the_readme_shows_both_ways_in():
    commands = readme_commands()
    assert "make" in [line.split("#")[0].strip() for line in commands]
    assert any(line.startswith("featurecache extract") for line in commands)
    assert any(line.startswith("featurecache classify") for line in commands)


def test_make_help_lists_every_target():
    ended = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in (
        "help",
        "install",
        "data",
        "features",
        "classify",
        "run",
        "predict",
        "test",
        "lint",
        "bench",
        "clean",
    ):
        assert re.search(rf"^  make {target} ", ended.stdout, re.M), target


def test_the_python_of_the_readme_runs(digits_folder, filled_cache, tmp_path):
    """Its paths are those of a reader: the demo cache, and photos in the working folder."""
    source = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.S))
    named = re.findall(r"efficientnet_lite0-[0-9a-f]{12}", README.read_text())
    (folder,) = filled_cache.glob("efficientnet_lite0-*")
    assert set(named) == {folder.name}
    (tmp_path / "photos").symlink_to(digits_folder)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cache").symlink_to(filled_cache)
    from pipeline.cli import run

    exported = ["cache", "export", str(digits_folder), str(tmp_path / "photos.h5"), "--cache", str(filled_cache)]
    assert run(exported) == 0
    program = source + "\nassert X.shape == (90, 1280) and len(y) == len(splits) == 90"
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "(90, 1280)" in ended.stdout
