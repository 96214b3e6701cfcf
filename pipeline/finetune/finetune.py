"""A whole fine-tune: from the run that it starts from to a run of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.evaluate.leak_effect import AuditAdvice, advise_audit_images
from featurecache.extract.images.manifest import Manifest
from featurecache.finetune.plan import FinetunePlan
from featurecache.runs.documents import Results
from featurecache.runs.folder import check_run_folder, point_latest
from featurecache.runs.leftover_runs import sweep_runs
from featurecache.runs.record_checks import read_results


def finetune_images(
    manifest: Manifest, plan: FinetunePlan, progress: Progress, *, advise: AuditAdvice = advise_audit_images
) -> tuple[Path, Results]:
    """Train, write the run, and return its folder and its results.json. Raises PipelineError, ExtractError.

    Killed at any instant it can be resumed: the state is removed when nothing is left to do but to move `latest`,
    which comes last because it may be what the run to start from is named by. Asked to resume what is whole already, it
    trains nothing.
    """
    from featurecache.finetune.assembly import load_untrained, tune
    from featurecache.finetune.source_run import label_images, read_source_run
    from featurecache.finetune.write_run import find_tuned_run, finish, source_leak_warnings, write_tuned_run

    began = time.perf_counter()
    source = read_source_run(plan, progress)
    labelled, features = label_images(manifest, plan, source, progress)
    ready = load_untrained(labelled, features, plan, source)
    whole = find_tuned_run(ready.checkpoint, plan) if plan.resume else None
    if whole:
        progress.say(f"Trained to the end already: '{printable(whole)}'. Without --resume it is trained again.")
        plan = replace(plan, out=whole)
        results = read_results(whole)
    else:
        check_run_folder(plan.out)
        tuned = tune(ready, manifest, labelled, features, plan, source, progress, began=began)
        warnings = source_leak_warnings(labelled, features, plan, source, advise)
        for warning in warnings:
            progress.say(warning)
        results = write_tuned_run(tuned, labelled, plan, manifest, warnings, progress)
    finish(results, manifest, labelled, plan, progress)
    ready.checkpoint.forget()
    sweep_runs(plan.out)
    point_latest(plan.out)
    return plan.out, results
