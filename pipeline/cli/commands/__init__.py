"""The commands: one a file, with its options, what it does and its exit code; a new one is named in `cli/main.py` too.

extract, classify, run, predict, serve, verify, export, finetune, report, audit, select, compare, backbones, heads,
doctor, bench
models      promote, models: heads of runs by name
cache       the upkeep of caches, a command a file
audit_text, compare_text, select_text
            results as text, where that is long
"""
