"""Kernels from memory, from disk, and compiled: when, and always the same numbers."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from agreement import assert_near
from fields import states

import odeum
from odeum.compile import engine, layouts
from odeum.compile.runtime import disk, kernels, machine
from odeum.compile.runtime.threads import SURE_STACK, stack_room
from odeum.errors import InputError

TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


def decaying(rate: float = 0.7):
    gain = torch.tensor(1.3)

    def field(t, y):
        return -rate * gain.to(y.dtype) * torch.tanh(2 * y)

    return field


def fused(field, **options):
    return odeum.solve(field, states(5, 2), TS, engine="fused", **options)


def entries():
    return sorted(path.name for path in disk.folder().iterdir())


def test_one_process_after_another(compilations):
    ys = fused(decaying()).ys
    assert compilations.n == 1
    assert torch.equal(fused(decaying()).ys, ys)
    assert compilations.n == 1
    compilations.forget()
    assert torch.equal(fused(decaying()).ys, ys)
    assert compilations.n == 1


@pytest.mark.slow
def test_damaged_entries_are_made_anew(compilations):
    ys = fused(decaying()).ys
    (key,) = entries()
    content = (disk.folder() / key).read_bytes()
    for damaged in (content[:-1], b"", content[:100] + b"?" + content[101:]):
        (disk.folder() / key).write_bytes(damaged)
        compilations.forget()
        before = compilations.n
        assert torch.equal(fused(decaying()).ys, ys)
        assert compilations.n == before + 1
        assert entries() == [key]
    assert len((disk.folder() / key).read_bytes()) == len(content)


@pytest.mark.slow
def test_what_is_whole_but_no_machine_code(compilations):
    """An entry that was written as it stands is tried, and made anew where it cannot be used."""
    ys = fused(decaying()).ys
    (key,) = entries()
    for nothing in (b"", b"no machine code", b"\x7fELF" + bytes(200)):
        disk.write(key, nothing)
        compilations.forget()
        before = compilations.n
        assert torch.equal(fused(decaying()).ys, ys)
        assert compilations.n == before + 1


def test_a_folder_that_cannot_be_written(compilations, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ODEUM_CACHE", str(tmp_path / "file" / "kernels"))
    ys = fused(decaying()).ys
    assert_near(ys, odeum.solve(decaying(), states(5, 2), TS, engine="eager").ys, 1e-12)
    compilations.forget()
    fused(decaying())
    assert compilations.n == 2


def test_names_tell_kernels_apart(compilations, monkeypatch):
    """Everything that machine code depends on is in its name, values of tensors are not."""
    monkeypatch.setattr(kernels, "compiled", lambda *_: b"")
    monkeypatch.setattr(kernels, "Library", lambda *_: Nothing())
    seen = []
    monkeypatch.setattr(disk, "read", lambda key: seen.append(key))
    monkeypatch.setattr(kernels, "emit_module", lambda *_: "")

    def key(field, y0=None, ts=TS, **options):
        y0 = states(5, 2) if y0 is None else y0
        compilations.forget()
        with pytest.raises(StopHere):
            odeum.solve(field, y0, ts, engine="fused", **options)
        return seen[-1]

    plain = key(decaying())
    gain = torch.tensor(1.3)

    def written_elsewhere(t, y):
        # The same operations on another line.
        return -0.7 * gain * torch.tanh(2 * y)

    assert key(decaying()) == plain
    assert key(decaying(0.8)) == plain  # what no row changes is computed before
    assert key(written_elsewhere) == plain
    assert key(decaying(), -2 * states(6, 2)) == plain
    assert key(decaying(), rtol=1e-8) == plain
    assert key(decaying(), step=odeum.StepOptions(first=0.1, max=0.3)) == plain
    others = [
        key(lambda t, y: -0.7 * gain * torch.sin(2 * y)),
        key(lambda t, y: -0.7 * gain * torch.tanh(3 * y)),
        key(decaying(), states(5, 3)),
        key(decaying(), states(5, 2).float(), TS.float()),
        key(decaying(), ts=TS[:, None].expand(3, 5).clone()),
        key(decaying(), states(5, 2).requires_grad_()),
        key(decaying(), ts=TS.clone().requires_grad_()),
        key(decaying(), method="dopri5"),
        key(decaying(), method="rk4"),
        key(decaying(), step=odeum.StepOptions(fixed=0.1)),
        key(decaying(), method=odeum.methods.get("tsit5", controller=odeum.control.PI)),
    ]
    assert len({plain, *others}) == len(others) + 1
    laid_out = []
    for paired in (0.1, 10.0):  # two registers of rows side by side, and one
        monkeypatch.setattr(layouts, "PAIRED", paired)
        laid_out.append(key(decaying(), states(64, 2)))
    assert laid_out[0] != laid_out[1]


class StopHere(Exception):
    """Nothing is to be solved."""


class Nothing:
    """In place of a library."""

    @property
    def addresses(self):
        raise StopHere


@pytest.mark.slow
def test_other_machines_have_other_kernels(compilations, monkeypatch):
    """And a plainer one of the same make gives the same numbers."""
    ys = fused(decaying()).ys
    plain = machine.machine(machine.BASELINE)
    monkeypatch.setattr(engine, "machine", lambda: plain)
    compilations.forget()
    assert_near(fused(decaying()).ys, ys, 1e-14)
    here = machine.machine()
    assert len(entries()) == (1 if here == plain else 2)
    other = replace(here, features=here.features + ",+none")
    monkeypatch.setattr(kernels, "compiled", lambda *_: pytest.fail("compiled"))
    monkeypatch.setattr(engine, "machine", lambda: other)
    compilations.forget()
    with pytest.raises(pytest.fail.Exception):
        fused(decaying())


def test_targets(monkeypatch):
    monkeypatch.setenv("ODEUM_TARGET", "baseline")
    machine.machine.cache_clear()
    try:
        assert machine.machine().features == ""
        assert machine.machine().width(4) == 4
        monkeypatch.setenv("ODEUM_TARGET", "fastest")
        machine.machine.cache_clear()
        with pytest.raises(InputError, match="baseline"):
            machine.machine()
    finally:
        machine.machine.cache_clear()


PROCESS = """
import json, sys
import torch, odeum
from odeum.compile.runtime import kernels

compiled, found = kernels.compiled, []
kernels.compiled = lambda *arguments: found.append(None) or compiled(*arguments)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
ts = torch.linspace(0, 1, 5).double()
y0 = torch.linspace(-1, 1, 14).double().view(7, 2).requires_grad_()
found_by = {}
for engine in ("fused", "eager"):
    sol = odeum.solve(lambda t, y: net(y), y0, ts, engine=engine, rtol=1e-7, atol=1e-9)
    grads = torch.autograd.grad(sol.ys.square().sum(), [y0, *net.parameters()])
    found_by[engine] = [x.flatten().tolist() for x in (sol.ys.detach(), *grads)]
    found_by[engine].append(sol.stats.n_accepted.tolist())
print(json.dumps({"compiled": len(found), **found_by}))
"""


def process(folder, **variables):
    environment = {**os.environ, "ODEUM_CACHE": str(folder), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(running):
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    return json.loads(out)


def assert_right(found):
    assert found["fused"][-1] == found["eager"][-1]
    for x, y in zip(found["fused"], found["eager"], strict=True):
        assert_near(torch.tensor(x).double(), torch.tensor(y).double(), 1e-10)


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    folder = tmp_path / "kernels"
    first, second = [printed(running) for running in [process(folder), process(folder)]]
    assert_right(first)
    assert first["fused"] == second["fused"]
    assert [path.name.startswith(".") for path in folder.iterdir()] == [False]


@pytest.mark.slow
def test_later_processes_and_plainer_machines(tmp_path):
    folder = tmp_path / "kernels"
    first = printed(process(folder))
    assert first["compiled"] == 1
    later = printed(process(folder))
    assert later["compiled"] == 0
    assert later["fused"] == first["fused"]
    plain = printed(process(folder, ODEUM_TARGET="baseline"))
    assert_right(plain)


@pytest.mark.slow
def test_killed_while_compiling(tmp_path):
    """Whenever a process is killed, those after it find a whole kernel or none."""
    folder = tmp_path / "kernels"
    for seconds in (1.5, 2.5, 3.0, 3.5, 4.0):
        running = process(folder)
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.kill()
        running.communicate()
    assert_right(printed(process(folder)))


def test_room_on_threads_follows_what_the_user_asks_of_openmp(monkeypatch):
    stack_room.cache_clear()
    monkeypatch.setenv("OMP_STACKSIZE", "1M")
    try:
        assert stack_room() == SURE_STACK
    finally:
        stack_room.cache_clear()
