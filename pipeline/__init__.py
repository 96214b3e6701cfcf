"""Both stages joined: F(x) = T(P(x)). The only room that may enter `extract` and `classify`.

cli.py, commands.py   the command line: what can be asked for, and what it does
console.py, tables.py what people see: progress on stderr, results on stdout
cache_commands.py, export_features.py
                      the upkeep of caches, and features as one ordinary file
join.py               labels, splits and cached features become X and y
alternatives.py       what a cache holds instead of what was asked for
run.py, rundir.py     stage two as one story, and the folder it leaves
predict.py            a saved head on any images
datasets.py           the data sets of `make data`
errors.py             what the pipeline itself refuses
"""
