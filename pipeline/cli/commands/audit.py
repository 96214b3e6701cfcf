"""`featurecache audit`: copies, leaks between splits, doubtful labels and outliers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import REFUSED
from featurecache.base.text import printable
from featurecache.cli.advice import naming_commands
from featurecache.cli.commands.audit_text import audit_text
from featurecache.cli.console import Console
from featurecache.cli.declare import SHARE, Command, option, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import PATH, CacheOption, FeatureOptions, Images, SplitOptions
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for
from featurecache.evaluate.leak_effect import MOST_LEAKED
from featurecache.runs.folder import ERRORS_FILE, check_fillable


@dataclass(frozen=True)
class AuditOptions:
    """Where the findings go, and which are too many."""

    out: Path | None = option(
        "--out", metavar="DIR", type=PATH, help="write audit.json and tables there, for instance into a run"
    )
    max_leaked: float = option(
        "--max-leaked", metavar="SHARE", type=SHARE, default=MOST_LEAKED, show_default=True,
        help="most of the test images that may leak, as a share; beyond it the exit code is 3",
    )  # fmt: skip


@click.command(
    cls=Command,
    takes_file=True,
    stopped="Stopped before the audit was finished.",
    examples=["featurecache audit photos/", "featurecache audit photos/ --out data/runs/latest"],
)
@takes(Images, FeatureOptions, AuditOptions, SplitOptions, CacheOption, Printing)
def command(
    images: Images,
    features: FeatureOptions,
    asked: AuditOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
) -> int:
    """Find copies, leaks, likely label errors and outliers.

    Ends with exit code 3 where more than --max-leaked of the test images are in train or val too, or under two labels.
    """
    if images.dry_run:
        return show_reading(images.read(may_be_vectors=True), as_json=printing.json)
    from featurecache.evaluate.audit import audit_images
    from featurecache.evaluate.audit_document import write_audit

    if asked.out is not None:
        check_fillable(asked.out)
    with Console(quiet=printing.quiet) as console, naming_commands(images.images, images.options()):
        manifest = images.read(cache.cache, may_be_vectors=True)
        requests = features.requests_for(manifest)
        if len(requests) > 1:
            raise UsageError(f"An audit looks at one set of features, not at {len(requests)}: name one --backbone.")
        found = audit_images(
            manifest,
            requests[0] if requests else None,
            cache_root=cache.cache,
            seed=split.seed,
            min_per_class=split.min_per_class,
            progress=console,
        )
    print(json.dumps(found.to_dict(), indent=2) if printing.json else audit_text(found))
    if asked.out is not None:
        write_audit(found.to_dict(), asked.out)
        console.say(f"written to {printable(asked.out)}")
    code = account_for(found.files, cache.cache / ERRORS_FILE, [images.images], console)
    return REFUSED if found.leakage.matters(asked.max_leaked) else code
