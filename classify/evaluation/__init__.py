"""Evaluation: metrics with their intervals, comparisons of heads, and label errors.

units            images that must stay together
clustered        effective number of images of a test set
metrics          accuracy, log loss and the others
metric_sums      the same as sums over rows
calibration      temperatures
bootstrap        replicates of every metric
intervals        95 % intervals from these
significance     paired tests
permutation      the same for metrics that are no count of right answers
criteria         metrics to choose by
ranking          heads by one of them, with their ties
comparison       metrics, intervals and tests of the heads of a run
learning_curve   forecasts of accuracy with more labels
leave_one_out    accuracy of ridge and kNN, each row left out
transferability  LogME, H-score, LEEP, NCE
similarity       close pairs, isolated rows
label_errors     likely wrong labels
"""
