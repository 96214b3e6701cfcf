"""What the project promises about its own code: rooms, start-up, words for machines, README."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prepared import run_program

ROOT = Path(__file__).parent.parent
ROOMS = ("extract", "classify", "pipeline")
READMES = [ROOT / "README.md", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("README.md"))]


def package_name(folder: Path) -> str:
    """The import name of a folder of the source."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(["featurecache", *(parts[1:] if parts[0] == "pipeline" else parts)])


def folders_of_the_source() -> set[Path]:
    """Every folder with modules in it."""
    return {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}


@pytest.fixture(scope="session")
def links(tmp_path_factory) -> dict[str, str]:
    """Surroundings with the whole package as links in one folder, for tools that do not follow package-dir."""
    root = tmp_path_factory.mktemp("src")
    (root / "featurecache").mkdir()
    for entry in [*(ROOT / "pipeline").iterdir(), ROOT / "extract", ROOT / "classify"]:
        (root / "featurecache" / entry.name).symlink_to(entry)
    return os.environ | {"PYTHONPATH": str(root)}


def test_the_import_contract_holds(links):
    lint = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=links)
    assert ended.returncode == 0, ended.stdout


ORDER = """
import grimp
from graphlib import TopologicalSorter
graph = grimp.build_graph("featurecache", cache_dir=None)
order = [*TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).static_order()]
print(len(order))
"""


def test_no_module_imports_itself_by_way_of_others(links):
    ended = subprocess.run([sys.executable, "-c", ORDER], capture_output=True, text=True, env=links)
    assert ended.returncode == 0, ended.stderr.splitlines()[-1]
    assert int(ended.stdout) > 200


def test_every_folder_of_the_source_is_installed_and_says_what_is_in_it():
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(map(package_name, folders_of_the_source())) == installed
    for folder in folders_of_the_source():
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
        missing = {name for name in modules if not re.search(rf"\b{name}\b", text)}
        assert not missing, f"{folder}/__init__.py does not name {missing}"


def test_folders_files_and_functions_are_small():
    for folder in folders_of_the_source():
        assert sum(path.is_file() for path in folder.iterdir()) <= 20, folder
        for path in folder.glob("*.py"):
            source = path.read_text()
            assert len(source.splitlines()) <= 300, path
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 50, f"{path}: {node.name}"


@pytest.mark.parametrize("name", ROOMS)
def test_a_name_of_before_says_the_new_one(name):
    command = [sys.executable, "-c", f"import {name}"]
    surroundings = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=surroundings)
    assert ended.returncode == 1
    assert f"ImportError: '{name}' has become 'featurecache" in ended.stderr


def test_a_project_with_an_extract_a_classify_and_a_pipeline_of_its_own_can_use_featurecache(tmp_path):
    (tmp_path / "extract.py").write_text("raise SystemExit('the extract of the project')")
    (tmp_path / "classify.py").write_text("raise SystemExit('the classify of the project')")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('the pipeline of the project')")
    program = (
        "from featurecache import list_heads\nfrom featurecache.cli.main import run\nraise SystemExit(run(['heads']))"
    )
    (tmp_path / "own.py").write_text(program)
    for command in (["own.py"], ["-m", "featurecache", "heads"]):
        ended = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "logistic" in ended.stdout


@pytest.mark.parametrize(
    "package",
    ["featurecache", "featurecache.extract", "featurecache.classify", "featurecache.cli.main",
     "featurecache.cli.commands.predict"],
)  # fmt: skip
def test_importing_a_package_imports_nothing_heavy(package):
    program = f"import sys, {package}; print([m for m in ('torch', 'sklearn', 'h5py', 'numpy') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_nothing_is_ever_unpickled():
    for path in [path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py")]:
        source = path.read_text()
        # weights.py names pickle.UnpicklingError, which torch raises when it refuses.
        assert not re.search(r"pickle\.(load|loads|Unpickler)\b|\b(import|from) (joblib|dill)\b", source), path
        for call in re.findall(r"torch\.load\([^)]*\)", source):
            assert "weights_only=True" in call, path


def readme_commands() -> list[str]:
    """Every line of the console blocks of all READMEs that a reader would type, once."""
    blocks = [
        block for path in READMES for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", path.read_text(), re.S)
    ]
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(("featurecache ", "make"))))


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_in_the_readme_is_one_that_exists(line, parsed):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        variables = [word.split("=")[0] for word in words[1:] if "=" in word]
        assert all(re.search(rf"^{name} +\?=", makefile, re.M) for name in variables)
    else:
        parsed(words[1:])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_readme_leads_somewhere(readme):
    for link in re.findall(r"\]\(([^)#]+)", readme.read_text()):
        assert (readme.parent / link).exists(), link


def test_files_and_names_of_the_table_of_places_exist():
    text = (ROOT / "pipeline" / "README.md").read_text()
    paths = set(re.findall(r"`([a-z_]+/[a-z_./]+)`", text))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    code = "".join(path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    names = set(re.findall(r"`(?:\w+\.)?([A-Za-z]*[A-Z_]\w+)`", text)) - {"__init__"}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)] == []


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
    texts = [path.read_text() for path in READMES]
    source = "\n".join(block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.S))
    named = re.findall(r"efficientnet_lite0-[0-9a-f]{12}", "".join(texts))
    (folder,) = filled_cache.glob("efficientnet_lite0-*")
    assert set(named) == {folder.name}
    (tmp_path / "photos").symlink_to(digits_folder)
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "cache").symlink_to(filled_cache)
    from featurecache.cli.main import run

    exported = ["cache", "export", str(digits_folder), str(tmp_path / "photos.h5"), "--cache", str(filled_cache)]
    assert run(exported) == 0
    there = f"import os; os.chdir({str(tmp_path)!r})\n"
    ended = run_program(there + source + "\nassert X.shape == (90, 1280) and len(y) == len(splits) == 90")
    assert ended.returncode == 0, ended.stderr
    assert "(90, 1280)" in ended.stdout
