"""The loop's accounting, with steppers and verdicts that follow a script."""

import pytest
import torch

from odeum.eager.control import Verdict
from odeum.eager.explicit import stepper
from odeum.eager.field import RowField
from odeum.eager.ledger import Ledger
from odeum.eager.loop import Loop
from odeum.eager.outputs import Outputs
from odeum.eager.records import Limits, Observers, State
from odeum.eager.times import Times
from odeum.solution import Status
from odeum.tableaus import EXPLICIT
from odeum.tree import structure_of

EULER = stepper(EXPLICIT["euler"], torch.float64, torch.device("cpu"))


class Script:
    """Accepts (``a``) and rejects (``r``, halving the step) each row's tries to order."""

    lands_on_outputs = False

    def __init__(self, tries, h):
        self.tries = tries
        self.h = torch.tensor(h)
        self.n_tried = 0
        self.seen = []

    def first(self, field, t, y, k, span):
        return self.h.expand_as(t) * span.sign(), 0

    def judge(self, step, memory):
        rows = step.y[:, 0].long().tolist()  # each row's first component is its number
        letters = [self.tries[row][self.n_tried] for row in rows]
        self.seen.append(rows)
        self.n_tried += 1
        accept = torch.tensor([[letter == "a"] for letter in letters])
        return Verdict(accept, torch.where(accept, 1.0, 0.5), memory)

    def bound(self, h):
        return h


class Recorder:
    """Takes steps as they are, and hands what became of them on."""

    def __init__(self, add):
        self.add = add

    def step(self, stepper, *state):
        return stepper.step(*state)

    def end_derivative(self, field, t1, y1):
        return field(t1, y1)


def run(tries, *, h, ts, max_steps=None, records=None):
    n_rows = len(tries)
    y0 = torch.stack([torch.arange(n_rows).double(), torch.zeros(n_rows)], -1)

    def field(t, y):
        return torch.stack([torch.zeros(len(y)), torch.ones(len(y))], -1)

    times = Times(ts, n_rows)
    rows = RowField(field, structure_of(y0), None, joint=False)
    outputs = Outputs(times, y0, keep=False)
    script = Script(tries, h)
    start = State(torch.arange(n_rows), times.start, y0, rows(times.start, y0))
    ledger = Ledger(n_rows, y0.device, implicit=False, n_evaluations=1)
    observers = Observers(recorder=None if records is None else Recorder(records))
    limits = Limits(max_steps)
    Loop(EULER, script, rows, start, times, outputs, ledger, limits, observers).run()
    return ledger, outputs.ys(), script


def test_each_row_takes_its_own_steps():
    # Row 0: four steps of 1/4. Row 1: rejects once, then eight steps of 1/8.
    loop, ys, script = run(["aaaa", "raaaaaaaa"], h=0.25, ts=torch.tensor([0.0, 0.5, 1.0]))
    assert loop.status.tolist() == [Status.SUCCESS] * 2
    assert loop.stats.n_accepted.tolist() == [4, 8]
    assert loop.stats.n_rejected.tolist() == [0, 1]
    # Euler: one evaluation to start, and one at the end of each step but the last.
    assert loop.stats.n_evaluations.tolist() == [4, 8]
    assert torch.equal(ys[:, :, 1], torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    assert script.seen[:4] == [[0, 1]] * 4
    assert script.seen[4:] == [[1]] * 5


def test_the_last_step_is_cut_or_stretched_to_land():
    records = []
    loop, ys, _ = run(["aaaa"], h=0.3, ts=torch.tensor([0.0, 1.0]), records=records.append)
    assert [float(record.h) for record in records] == pytest.approx([0.3, 0.3, 0.3, 0.1])
    loop, ys, _ = run(["aaa"], h=0.3325, ts=torch.tensor([0.0, 1.0]))
    assert loop.stats.n_accepted.tolist() == [3]  # no fourth one of 0.0025
    assert float(ys[-1, 0, 1]) == pytest.approx(1.0, abs=1e-15)


def test_time_may_run_backwards():
    records = []
    _, ys, _ = run(["aaaa"], h=0.25, ts=torch.tensor([1.0, 0.4, 0.0]), records=records.append)
    assert [float(record.h) for record in records] == [-0.25] * 4
    assert ys[:, 0, 1].tolist() == pytest.approx([0.0, -0.6, -1.0])


def test_a_row_that_never_arrives_stops_at_the_limit():
    loop, ys, _ = run(["a" * 20, "r" * 20], h=0.1, ts=torch.tensor([0.0, 0.5, 1.0]), max_steps=12)
    assert loop.status.tolist() == [Status.SUCCESS, Status.MAX_STEPS]
    assert loop.stats.n_accepted.tolist() == [10, 0]
    assert loop.stats.n_rejected.tolist() == [0, 12]
    assert torch.isfinite(ys[:, 0]).all()
    assert torch.isnan(ys[1:, 1]).all()


def test_a_row_that_only_rejects_stops_when_its_step_is_too_small():
    loop, _, _ = run(["r" * 200], h=0.1, ts=torch.tensor([1.0, 2.0]))
    assert loop.status.tolist() == [Status.STEP_TOO_SMALL]
    assert int(loop.stats.n_rejected) < 70


def test_the_tape_sees_which_rows_accepted():
    records = []
    run(["araa", "aa"], h=0.5, ts=torch.tensor([0.0, 1.0]), records=records.append)
    accepts = [None if r.accept is None else r.accept.flatten().tolist() for r in records]
    assert [r.rows.tolist() for r in records] == [[0, 1], [0, 1], [0], [0]]
    assert accepts == [None, [False, True], None, None]
    assert records[1].t1.flatten().tolist() == [0.5, 1.0]
    assert records[1].accepted().rows.tolist() == [1]
