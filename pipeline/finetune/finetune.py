"""A whole fine-tune: from the run that it starts from to a run of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.evaluate.leaks import AuditAdvice, advise_audit_images
from featurecache.extract.images.manifest import Manifest
from featurecache.finetune.plan import FinetunePlan
from featurecache.runs.documents import Results
from featurecache.runs.folder import check_run_folder, point_latest
from featurecache.runs.leftover_runs import sweep_runs
from featurecache.runs.record_checks import read_results


def finetune_images(
    manifest: Manifest, plan: FinetunePlan, progress: Progress, *, advise: AuditAdvice = advise_audit_images
) -> tuple[Path, Results]:
    """Train and write the run; returns its folder and what its results.json says. Raises PipelineError, ExtractError.

    Killed at any instant it goes on from there: the state is forgotten when nothing is left to do but to move `latest`,
    which comes last because it may be what the run to start from is named by. Asked to resume what is whole already, it
    trains nothing.
    """
    from featurecache.finetune.source_run import begin, label
    from featurecache.finetune.train import make_ready, tune
    from featurecache.finetune.write_run import finish, leak_warnings_of, whole_outcome, write_outcome

    began = time.perf_counter()
    start = begin(plan)
    labelled, features = label(manifest, plan, start, progress)
    ready = make_ready(labelled, features, plan, start)
    whole = whole_outcome(ready.checkpoint, plan) if plan.resume else None
    if whole:
        progress.say(f"Trained to the end already: '{printable(whole)}'. Without --resume it is trained again.")
        plan = replace(plan, out=whole)
        results = read_results(whole)
    else:
        check_run_folder(plan.out)
        tuned = tune(ready, manifest, labelled, features, plan, start, progress, began=began)
        warnings = leak_warnings_of(labelled, features, plan, start, advise)
        for warning in warnings:
            progress.say(warning)
        results = write_outcome(tuned, labelled, plan, manifest, warnings, progress)
    finish(results, manifest, labelled, plan, progress)
    ready.checkpoint.forget()
    sweep_runs(plan.out)
    point_latest(plan.out)
    return plan.out, results
