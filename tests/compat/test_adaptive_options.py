"""Options of the methods whose steps follow a tolerance."""

import warnings

import pytest
import torch
from peers import ADAPTIVE, ours, start, swing, theirs
from torch.testing import assert_close

TIMES = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


class Steps:
    """A field that writes down the sizes of the steps it is told of."""

    def __init__(self, field=swing):
        self.field, self.tried, self.accepted, self.times = field, [], [], []

    def __call__(self, t, y):
        self.times.append(float(t))
        return self.field(t, y)

    def callback_step(self, t, y, dt):
        self.tried.append(float(dt))

    def callback_accept_step(self, t, y, dt):
        self.accepted.append((float(t), float(dt)))


def steps(library=ours, field=swing, y0=None, t=TIMES, method="dopri5", rtol=1e-6, **options):
    taken = Steps(field)
    y0 = start() if y0 is None else y0
    taken.states = library.odeint(taken, y0, t, method=method, rtol=rtol, options=options)
    return taken


@pytest.mark.parametrize("library", [theirs, ours], ids=["theirs", "ours"])
class TestBothLibraries:
    def test_the_first_step_is_as_given(self, library):
        assert steps(library, first_step=1e-3).tried[0] == pytest.approx(1e-3)

    def test_no_step_is_larger_than_the_largest(self, library):
        taken = steps(library, max_step=0.05)
        assert max(taken.tried) <= 0.05 * (1 + 1e-12)
        assert len(taken.accepted) >= 40

    def test_steps_at_the_smallest_stand_whatever_their_error(self, library):
        taken = steps(library, rtol=1e-12, min_step=0.25)
        assert len(taken.accepted) <= 9
        exact = theirs.odeint(swing, start(), TIMES, rtol=1e-10, atol=1e-12)
        assert 1e-8 < (taken.states - exact).abs().max() < 1e-2

    @pytest.mark.parametrize("option", ["step_t", "jump_t"])
    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
    def test_steps_land_on_the_times_given(self, library, option, reverse):
        wanted = torch.tensor([1.234, 0.777])
        taken = steps(library, t=TIMES.flip(0) if reverse else TIMES, **{option: wanted})
        starts = torch.tensor([t for t, _ in taken.accepted])
        for time in wanted:
            assert (starts - time).abs().min() < 1e-12

    def test_times_to_land_on_may_lie_outside_the_span(self, library):
        taken = steps(library, step_t=torch.tensor([-1.0, 0.7, 9.0]), jump_t=torch.tensor([0.9]))
        starts = [round(t, 12) for t, _ in taken.accepted]
        assert 0.7 in starts
        assert 0.9 in starts

    def test_a_time_cannot_be_both(self, library):
        with pytest.raises(ValueError):
            steps(library, step_t=torch.tensor([0.7]), jump_t=torch.tensor([0.7]))

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
    def test_a_jump_is_seen_from_its_own_side(self, library, reverse):
        """``y' = a y`` whose rate jumps: each piece is solved as if there were no other."""

        def jumps(t, y):
            return torch.where(t < 1.0, -1.0, 2.0) * y

        t = TIMES.flip(0) if reverse else TIMES
        taken = steps(library, jumps, torch.ones(1), t, jump_t=torch.tensor([1.0]), rtol=1e-9)
        exact = torch.exp(torch.tensor(1.0)) ** (-1 if reverse else 1)
        assert_close(taken.states[-1, 0], exact, rtol=1e-7, atol=0)
        assert len(taken.tried) - len(taken.accepted) <= 5

    def test_the_number_of_steps_is_bounded(self, library):
        with pytest.raises(AssertionError, match="steps"):
            steps(library, max_num_steps=3, rtol=1e-10, t=TIMES[::2])

    def test_factors_bound_how_steps_change(self, library):
        taken = steps(library, first_step=1e-4, ifactor=2.0, rtol=1e-4)
        sizes = torch.tensor([dt for _, dt in taken.accepted])
        assert (sizes[1:] / sizes[:-1]).max() <= 2 + 1e-9

    def test_safety_makes_steps_smaller(self, library):
        plain, careful = steps(library), steps(library, safety=0.3)
        assert len(careful.accepted) > len(plain.accepted)

    def test_a_norm_of_the_error_may_be_given(self, library):
        seen = []

        def largest(x):
            seen.append(x.shape)
            return x.abs().max()

        by_largest = steps(library, norm=largest)
        assert set(seen) == {(3, 2)}
        assert len(by_largest.accepted) >= len(steps(library).accepted)

    def test_the_norm_of_a_tuple_is_given_a_tuple(self, library):
        def field(t, y):
            return torch.cos(t).reshape(1), 40 * torch.cos(40 * t).reshape(1)

        y0 = (torch.zeros(1), torch.zeros(1))
        first = steps(library, field, y0, norm=lambda x: x[0].abs().max())
        both = steps(library, field, y0)
        assert len(first.times) < len(both.times) / 3
        assert_close(first.states[0][-1, 0], torch.sin(TIMES[-1]), rtol=1e-5, atol=1e-5)

    def test_the_norm_of_a_complex_state_is_given_complex_numbers(self, library):
        seen = []

        def norm(x):
            seen.append(x.dtype)
            return x.abs().max()

        steps(library, lambda t, y: 1j * y, torch.ones(2, dtype=torch.complex128), norm=norm)
        assert set(seen) == {torch.complex128}

    def test_times_have_at_least_the_dtype_asked_for(self, library):
        y0, t = start().float(), TIMES.float()
        for dtype in (torch.float32, torch.float64):
            taken = steps(library, y0=y0, t=t, dtype=dtype, rtol=1e-4)
            assert taken.states.dtype == torch.float32

    def test_options_that_a_method_does_not_read_are_warned_of(self, library):
        with pytest.warns(UserWarning, match="setp_size"):
            library.odeint(swing, start(), TIMES, method="euler", options={"setp_size": 0.1})
        with pytest.warns(UserWarning, match="step_size"):
            library.odeint(swing, start(), TIMES, options={"step_size": 0.1})
        with pytest.warns(UserWarning, match="min_step"):
            library.odeint(swing, start(), TIMES, method="rk4", options={"min_step": 0.1})

    def test_options_that_are_read_are_not_warned_of(self, library):
        everything = {
            "min_step": 1e-9, "max_step": 1.0, "first_step": 0.1, "step_t": torch.tensor([0.7]),
            "jump_t": torch.tensor([0.8]), "safety": 0.8, "ifactor": 5.0, "dfactor": 0.3,
            "max_num_steps": 1000, "dtype": torch.float64, "norm": lambda x: x.abs().max(),
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            library.odeint(swing, start(), TIMES, method="dopri5", options=everything)

    def test_options_are_left_as_they_were(self, library):
        options = {"jump_t": torch.tensor([0.5]), "max_step": 0.3}
        library.odeint(swing, start(), TIMES, method="dopri5", options=options)
        assert set(options) == {"jump_t", "max_step"}


@pytest.mark.parametrize("method", ADAPTIVE)
def test_it_takes_no_more_steps_than_torchdiffeq(method):
    """Nor evaluations, where the last stage is the next step's first: there it is taken to be."""
    mine, wanted = (steps(x, method=method, rtol=1e-4, t=TIMES[::2]) for x in (ours, theirs))
    assert len(mine.tried) <= 1.2 * len(wanted.tried)
    if method in ("dopri5", "dopri8", "bosh3"):
        assert len(mine.times) <= 1.2 * len(wanted.times)
