"""Kill `classify` with SIGKILL at random instants, give another command, and look whether a run is whole.

Half of the kills come from outside at a random time, half from inside, just before or after a call that fits, saves or
moves something. The run goes into a folder that holds an older one, into one that is not there yet, or into data/runs
under a name of its own. After the next command (the same again, `predict`, `compare` or `report`) the older run or the
new one must be whole, and no file of the user's touched; after the same command the new run must be there, every head
and prediction to the last bit that of a run nobody disturbed, and nothing else be left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet
from killing import ANY_TIME, Kill, KillPoints, check_swept, killed, wait_for

from featurecache.bench.demo_data import write_dataset

HEADS = "ridge,naive_bayes,knn"
FEATURES = ["--backbone", "pixels", "--size", "8", "--cache", "cache"]
PER_CLASS = 30  # images: what is killed is the writing of a run, and more of them would only take longer
OLDER, NEWER = "1", "0"
OWN_REPORT = "report.html"
POINTS = KillPoints(
    fit="featurecache.evaluate.classify:try_head",
    keep="featurecache.evaluate.kept_heads:KeptHeads.keep",
    save="featurecache.classify.heads.saving.folder:save_head",
    write="featurecache.evaluate.classify:write_run",
    commit="featurecache.runs.work_folder:commit",
    complete="featurecache.runs.work_folder:complete",
    report="featurecache.report.page:write_report",
    flush="featurecache.base.files:flush",
    rename="pathlib:Path.rename",
    replace="pathlib:Path.replace",
    unlink="pathlib:Path.unlink",
)


def featurecache(*words: str) -> int:
    """Give a command in this process and return its exit code."""
    import torch

    from featurecache.cli.main import run
    from featurecache.report import page
    from featurecache.report.sections import tsne

    torch.set_num_threads(1)
    # The report would wait for t-SNE two thirds of the time, most kills at any time would come there, and a process
    # that has lost its parent go on.
    tsne.LEAST_POINTS = page.LEAST_POINTS = sys.maxsize
    return run(list(words))


def classify(out: str | None, seed: str = NEWER) -> None:
    """Train the heads. Raises AssertionError unless that ends well."""
    place = [] if out is None else ["--out", out]
    assert featurecache("classify", "images", *FEATURES, "--heads", HEADS, "--seed", seed, *place, "--quiet") == 0


def prepare() -> None:
    """Write some of scikit-learn's digits and keep their features."""
    write_dataset("digits", Path("images"))
    for folder in Path("images").iterdir():
        for path in sorted(folder.iterdir())[PER_CLASS:]:
            path.unlink()
    assert featurecache("extract", "images", *FEATURES, "--engine", "torch", "--quiet") == 0


def set_up(mode: str) -> None:
    """Let the working folder be as before any kill; mode: "replace", "new" or "default"."""
    for name in ("runs", "data"):
        shutil.rmtree(name, ignore_errors=True)
    for name in ("runs/notes.txt", "runs/results/results.json", "runs/.hidden/thesis.txt", "data/runs/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"the user's {name}")
    Path("runs/latest").symlink_to("results")
    if mode == "replace":
        shutil.copytree("older", "runs/out")


def check_own_files() -> None:
    """Raise AssertionError where a file or link of the user's is not what it was."""
    for name in ("runs/notes.txt", "runs/results/results.json", "runs/.hidden/thesis.txt", "data/runs/notes.txt"):
        assert Path(name).read_text() == f"the user's {name}", f"{name} was touched"
    assert os.readlink("runs/latest") == "results", "the user's link was moved"


def fingerprint(run: Path) -> dict[str, str]:
    """Return what a run says of itself, but for times: digests by the name of a file."""
    found = {
        path.relative_to(run).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in [*run.glob("heads/*/*.safetensors"), run / "splits.csv"]
    }
    rows = pyarrow.parquet.read_table(run / "predictions.parquet").to_pylist()
    rows.sort(key=lambda row: (row["head"], row["path"]))
    results = json.loads((run / "results.json").read_text())
    tests = [{key: head[key] for key in ("name", "params", "val", "test")} for head in results["heads"]]
    tests.sort(key=lambda head: head["name"])
    found["predictions"] = sha256(json.dumps(rows).encode()).hexdigest()
    found["tests"] = sha256(json.dumps(tests, sort_keys=True).encode()).hexdigest()
    return found


def check_whole(run: Path, *, allowed: dict[str, dict[str, str]], mode: str) -> None:
    """Raise AssertionError unless the run is one of those allowed; where none was before, it may be missing."""
    if not (run / "results.json").exists():
        assert mode != "replace", "neither the older run nor the new one is there"
        assert not run.exists(), "half a run is there"
        return
    found = fingerprint(run)
    which = [name for name, other in allowed.items() if other == found]
    assert which, f"a run that is neither: {found} {allowed}"
    if which == ["newer"] and (run / OWN_REPORT).exists():
        assert (run / OWN_REPORT).read_bytes() != Path("older", OWN_REPORT).read_bytes(), "a new run, an old page"


def next_command(rng: random.Random, run: Path) -> None:
    """Give some command that touches the run. Raises AssertionError where a run that is there is refused."""
    others = {
        "predict": ["predict", str(run), "images/0/00000.png", "--cache", "cache", "--quiet"],
        "compare": ["compare", str(run)],
        "report": ["report", str(run), "--cache", "cache"],
    }
    words = others[rng.choice(sorted(others))]
    code = featurecache(*words)
    wanted = 0 if (run / "results.json").exists() else 2
    assert code == wanted, f"{words[0]} ended with {code} instead of {wanted}"


def one_round(seconds: float | None, kill: Kill, rng: random.Random, allowed: dict[str, dict[str, str]]) -> str | None:
    """Set up, kill, give another command, look, give the same command, look again; returns where the kill came."""
    mode = rng.choice(["replace", "replace", "new", "default"])
    out = None if mode == "default" else "runs/out"
    set_up(mode)

    def work() -> None:
        POINTS.arm(kill)
        classify(out)

    was_killed = killed(work, seconds)
    check_own_files()
    if out is not None and rng.random() < 0.5:
        wait_for(lambda: next_command(rng, Path(out)))
        check_whole(Path(out), allowed=allowed, mode=mode)
        check_own_files()
    wait_for(lambda: classify(out))
    check_own_files()
    run = Path("data/runs/latest").resolve() if out is None else Path(out)
    check_whole(run, allowed={"newer": allowed["newer"]}, mode="replace")
    assert (run / OWN_REPORT).exists(), "the report is missing"
    check_swept(run)
    check_own_files()
    return str(kill) if was_killed else None


def torture(rounds: int, seed: int = 0) -> Counter[str]:
    """That many kills; how often they came where. Raises AssertionError at the first that does harm."""
    rng, where, before = random.Random(seed), Counter[str](), Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            wait_for(prepare)
            wait_for(lambda: POINTS.counting(lambda: classify("older", OLDER), Path("calls.json")))
            POINTS.read_calls(Path("calls.json"))  # imports what the processes below need
            set_up("replace")
            started = time.perf_counter()
            wait_for(lambda: POINTS.counting(lambda: classify("runs/out"), Path("calls.json")))
            seconds = time.perf_counter() - started
            POINTS.read_calls(Path("calls.json"))
            shutil.copytree("runs/out", "newer")
            allowed = {each: fingerprint(Path(each)) for each in ("older", "newer")}
            assert allowed["older"] != allowed["newer"]
            for kill in POINTS.draw(rng):
                if where.total() >= rounds:
                    break
                moment = rng.uniform(0, seconds) if kill.point == ANY_TIME else None
                place = one_round(moment, kill, rng, allowed)
                where.update([place] if place else [])
                print(f"\r{where.total()} of {rounds} classifies killed", end="", file=sys.stderr, flush=True)
        finally:
            os.chdir(before)
    print(file=sys.stderr)
    return where
