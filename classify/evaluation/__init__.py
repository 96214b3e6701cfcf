"""Evaluation: metrics with their intervals, comparisons of heads, and what is wrong with labels.

units            what must stay together
clustered        how many independent images a test set is worth
metrics          the numbers
metric_sums      the same as sums over rows
calibration      temperatures
bootstrap        replicates of every metric
intervals        95 % intervals from these
significance     paired tests
comparison       all of it for the heads of a run
learning_curve   what more labels would bring
leave_one_out    light heads, each row judged by the others
transferability  LogME, H-score, LEEP, NCE
similarity       which rows lie close together
label_errors     labels that held-out heads doubt
"""
