import numpy as np

from featurecache.classify.solvers.successive_halving import WORST, halve, halving_note, train_for

CODES = np.arange(100) % 2


class Plan:
    """Networks that do as planned: the accuracy of each setting after each epoch."""

    def __init__(self, accuracy):
        self.accuracy, self.epoch, self.looks, self.left = accuracy, 0, 0, list(range(len(accuracy)))

    def train(self):
        self.epoch += 1

    def look(self, places):
        self.looks += len(places)
        return [self.scores(self.accuracy[self.left[place]][self.epoch - 1]) for place in places]

    def keep(self, staying):
        self.left = [self.left[position] for position in staying]

    @staticmethod
    def scores(accuracy):
        right = np.arange(100) < 100 * accuracy
        scores = np.zeros((100, 2))
        scores[np.arange(100), np.where(right, CODES, 1 - CODES)] = 1.0
        return scores


def whole(scores):
    """All of the scores are kept."""
    return scores


def run(accuracy, **settings):
    plan = Plan(accuracy)
    ended = list(halve(plan, plan.train, plan.look, whole, CODES, epochs=[len(a) for a in accuracy], **settings))
    return {runner.setting: runner for runner in ended}, [runner.setting for runner in ended]


def test_the_best_epoch_is_kept_and_patience_ends_a_setting():
    found, _ = run([[0.5, 0.7, 0.6, 0.6, 0.9]], patience=2, rungs={})
    assert (found[0].epoch, found[0].n_epochs) == (2, 4)
    assert np.mean(found[0].judged.argmax(axis=1) == CODES) == 0.7


def test_each_ends_by_itself():
    found, order = run([[0.5, 0.6, 0.7, 0.8], [0.7, 0.6, 0.6, 0.6]], patience=2, rungs={})
    assert order == [1, 0]
    assert [found[s].epoch for s in (0, 1)] == [4, 1]


def test_those_behind_leave_at_a_rung():
    found, order = run([[0.5, 0.9], [0.6, 0.6], [0.7, 0.7], [0.8, 0.8]], patience=2, rungs={1: 0.5})
    assert order[:2] == [0, 1]
    assert [found[s].stopped for s in range(4)] == [1, 1, 0, 0]
    assert halving_note(list(found.values())) == (
        "Successive halving stopped 2 after epoch 1 of the 4 settings: they were behind on val."
    )


def test_nobody_left_is_not_told():
    found, _ = run([[0.5], [0.6]], patience=2, rungs={})
    assert halving_note(list(found.values())) == ""


def test_scores_that_are_not_numbers_are_last_and_do_not_stop_the_rest():
    plan = Plan([[0.5, 0.6], [0.9, 0.9]])
    plan.scores = lambda accuracy: Plan.scores(accuracy) * (np.nan if accuracy == 0.9 else 1.0)
    found = {
        r.setting: r for r in halve(plan, plan.train, plan.look, whole, CODES, epochs=[2, 2], patience=2, rungs={})
    }
    assert found[1].rank == WORST
    assert (found[1].judged == 0.0).all()
    assert found[0].rank[0] == 0.6


def test_to_follow_is_to_be_trained_as_long_as_told_and_looked_at_once():
    plan = Plan([[0.9, 0.5, 0.6], [0.7], [0.8, 0.6]])
    found = list(train_for(plan, plan.train, plan.look, whole, CODES, epochs=[3, 1, 2]))
    assert [(runner.setting, runner.epoch, runner.n_epochs) for runner in found] == [(1, 1, 1), (2, 2, 2), (0, 3, 3)]
    assert [runner.rank[0] for runner in found] == [0.7, 0.6, 0.6]
    assert (plan.looks, plan.epoch) == (3, 3)


def test_who_follows_and_diverges_is_last():
    plan = Plan([[0.5, 0.5]])
    plan.scores = lambda accuracy: Plan.scores(accuracy) * np.nan
    (found,) = train_for(plan, plan.train, plan.look, whole, CODES, epochs=[2])
    assert (found.epoch, found.rank) == (2, WORST)
    assert (found.judged == 0.0).all()


def test_the_best_epoch_and_who_goes_on_are_those_of_the_rank_that_is_given():
    plan = Plan([[0.5, 0.7, 0.9], [0.9, 0.6, 0.5]])
    worst_first = lambda scores, codes: (-float(np.mean(scores.argmax(axis=1) == codes)), 0.0)  # noqa: E731
    how = {"epochs": [3, 3], "patience": 3, "rungs": {1: 1 / 2}, "rank": worst_first}
    found = {r.setting: r for r in halve(plan, plan.train, plan.look, whole, CODES, **how)}
    assert [(found[s].epoch, found[s].stopped) for s in (0, 1)] == [(1, 0), (1, 1)]
