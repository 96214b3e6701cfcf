"""Both stages joined: F(x) = T(P(x)). The only room that may enter `extract` and `classify`.

cli.py, commands.py   the command line: what can be asked for, and what it does
asked.py              what its options ask for, as values
exits.py, stopping.py, unexpected.py
                      how a command ends: exit codes, Ctrl-C and SIGTERM, a sentence and a log for any other exception
console.py, tables.py what people see: progress on stderr, results on stdout
cache_commands.py, cache_text.py, export_features.py
                      the upkeep of caches, and features as one ordinary file
join.py               labels, splits and cached features become X and y
alternatives.py       what a cache holds instead of what was asked for
run.py, attempts.py, failures.py, results.py, rundir.py
                      stage two as one story, what came of it, and the folder it leaves
workfolder.py, kept.py, placing.py, locks.py, leftover_runs.py
                      the hidden folder where a run is made, the heads it goes on from, its way into its place
refusal_list.py       errors.csv outside of runs
predict.py            a saved head on any images
datasets.py           the data sets of `make data`
audit.py, audit_text.py, copies.py, leaks.py
                      copies, leaks and doubtful labels, thoroughly and at a glance
select.py, selection_text.py, transfer.py
                      which backbone to pay for, and whether any is worth it
compare.py, compare_text.py, few_shot.py
                      several runs in one table; how far few labels go
report/               one run as a page to look at
finetune/             the network itself trained on, from a run's head and cached maps
memory.py             features that are larger than memory
bench_extract.py, bench_rivals.py, bench_heads.py, bench_classify.py, bench_finetune.py
                      how fast both stages and fine-tuning are, beside what is usual
listings.py, doctor.py what can be named, and what this machine offers
errors.py             what the pipeline itself refuses
"""
