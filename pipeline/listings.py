"""The commands about what there is: backbones, heads, what this machine offers, and how fast it is."""

from __future__ import annotations

import argparse
import json

from extract.manifest import printable
from pipeline import tables
from pipeline.exits import DONE


def backbones(options: argparse.Namespace) -> int:
    """What --backbone can name."""
    from extract.backbones import list_backbones

    infos = list_backbones()
    if options.json:
        print(json.dumps([vars(info) for info in infos], indent=2))
        return DONE
    rows = [(info.name, info.source, ", ".join(info.weights), "yes" if info.at_hand else "") for info in infos]
    print(tables.table(rows, ("backbone", "source", "weights, default first", "at hand")))
    return DONE


def heads(options: argparse.Namespace) -> int:
    """What --heads can name."""
    from classify.heads import list_heads

    infos = list_heads()
    if options.json:
        print(json.dumps([{"name": info.name, "summary": info.summary} for info in infos], indent=2))
        return DONE
    print(tables.table([(info.name, info.summary) for info in infos], ("head", "what it is")))
    print("\nand any scikit-learn classifier by its dotted path, such as sklearn.ensemble.ExtraTreesClassifier")
    return DONE


def doctor(options: argparse.Namespace) -> int:
    """What this machine offers."""
    from pipeline.doctor import examine

    findings = examine(options.cache)
    if options.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print(tables.table([(f.what, printable(f.found), f.advice) for f in findings], ("what", "found", "advice")))
    return DONE


def bench(options: argparse.Namespace) -> int:
    """How fast both stages are on this machine."""
    from importlib import import_module

    try:
        return int(import_module(f"pipeline.bench_{options.what}").main(options.rest))
    except SystemExit as end:
        return int(end.code or 0)
