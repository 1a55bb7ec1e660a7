"""A latent ODE learns noisy spirals from few irregular observations, and goes on where they end.

Owns the protocol of Chen et al. 2018, section 5.1: which spirals are learned from, what is scored,
and what is drawn. Batches and losses are `series`'s. What the paper leaves open is settled so:

- A fifth of the 1000 spirals is for testing only; errors are root mean squares per component.
- Errors are taken against the curve without noise, whose standard deviation of 0.3 (the authors'
  example has it) no predictor could come below.
- Of each spiral 30, 50 or 100 of the 100 times are observed; the same for training and testing.
- Scored are the 100 times of the grid that follow. Of spirals that start late the curve ends before
  that: these count in "where the curve goes on" alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pandas as pd
import torch

from odeum.datasets import Spirals, spirals
from odeum.errors import InputError
from odeum.lab import specs
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import single_thread
from odeum.lab.experiments import latent_spirals_figures as figures
from odeum.lab.experiments.series import LatentTraining, RecurrentPredictor, Series
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Studied, Study
from odeum.lab.wording import number
from odeum.models import LatentODE
from odeum.types import Tensor

PUBLISHED = {30: (0.1642, 0.3937), 50: (0.1502, 0.3202), 100: (0.1346, 0.1813)}
"""Predictive RMSE of the latent ODE and of the RNN, by observations."""

SOURCE = "Chen et al. 2018, table 2"
SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-3, "atol": 1e-4}
N_LINES = 40
"""Lines of metrics of each training."""


@dataclass(frozen=True)
class LatentSpiralsOptions:
    """Options of ``latent-spirals``.

    Raises:
        InputError: for a value outside its range.
    """

    observations: Annotated[tuple[int, ...], "observed of the 100 times of each spiral"] = (
        30,
        50,
        100,
    )
    n_spirals: Annotated[int, "spirals, a fifth of which is held out"] = 1000
    noise: Annotated[float, "standard deviation of the noise; radii go from 0.8 to 15"] = 0.3
    encoder: Annotated[Literal["rnn", "ode-rnn"], "what reads the observations"] = "rnn"
    latent_dim: Annotated[int, "components of the latent state"] = 4
    hidden: Annotated[int, "width of the layers of latent field and decoder"] = 50
    encoder_hidden: Annotated[int, "width of the hidden state of encoder and RNN"] = 50
    steps: Annotated[int, "optimiser steps of every latent ODE"] = 5000
    rnn_steps: Annotated[int, "optimiser steps of every RNN"] = 2000
    batch: Annotated[int, "spirals in every batch"] = 100
    learning_rate: Annotated[float, "of Adam, at the start"] = 0.01
    continuity: Annotated[float, "weight of the latent path's own continuity"] = 0.3

    def __post_init__(self) -> None:
        for name in (
            *("latent_dim", "hidden", "encoder_hidden", "steps", "rnn_steps", "batch"),
            *("learning_rate", "noise"),
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: give a number above 0")
        if not self.observations or not all(6 <= n <= 100 for n in self.observations):
            raise InputError(
                f"observations are {self.observations}: give numbers from 6 to 100, such as 30,100"
            )
        if self.n_spirals < 100:
            raise InputError(f"n_spirals is {self.n_spirals}: give at least 100")
        if self.continuity < 0:
            raise InputError(f"continuity is {self.continuity}: give a number of at least 0")


def run_latent_spirals(options: LatentSpiralsOptions, setting: Setting) -> Studied:
    """Train a latent ODE and an RNN on each number of observations, and let both predict.

    Args:
        options: what to learn, from what.
        setting: where and how.

    Returns:
        The finished study.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss was not finite.
    """
    study = Study.begin(
        LATENT_SPIRALS, options, setting, title="Latent ODEs of spirals seen in part"
    )
    with single_thread(study.device.type == "cpu"):
        data = spirals(options.n_spirals, noise=options.noise, seed=setting.seed)
        learned = [_Learned(options, study, data, n) for n in options.observations]
        _draw(study, learned)
        return _finish(study, learned)


LATENT_SPIRALS = Experiment(
    "latent-spirals",
    "a latent ODE predicts spirals from 30 to 100 noisy observations, against an RNN",
    LatentSpiralsOptions,
    run_latent_spirals,
)


class _Learned:
    """Both predictors learned from one number of observations, and what they say of the rest.

    Attributes:
        n_observed: observations of each spiral.
        test: the spirals held out.
        observed: their observations.
        model: the latent ODE.
        ts: times before, in and after the observed window, [3 * window].
        truth: of the test spirals there, [3 * window, batch, 2]; NaN where the curve is not.
        expected: by the latent ODE, likewise.
        followed: by the RNN, NaN up to the end of the window.
    """

    def __init__(
        self, options: LatentSpiralsOptions, study: Study, data: Spirals, n_observed: int
    ) -> None:
        n_train = round(0.8 * len(data))
        series = Series(*data.observe(n_observed, seed=study.setting.seed))
        train = series.rows(slice(n_train)).to(study.device)
        self.n_observed = n_observed
        self.test = data.rows(slice(n_train, None))
        self.observed = series.rows(slice(n_train, None))
        self.window = len(data.ts)
        self.ts = (torch.arange(3 * self.window) - self.window) * data.ts[1]
        self.truth = self.test.truth(self.ts)
        self.model = self._learn_latent(options, study, train)
        rnn = self._learn_rnn(options, study, train)
        seen, ts = self.observed.to(study.device), self.ts.to(study.device)
        with torch.no_grad():
            self.expected = self.model.predict(seen.ys, seen.ts, ts).cpu()
            after = rnn.predict(seen.ys, seen.ts, ts[2 * self.window :])
        self.followed = torch.full_like(self.truth, torch.nan)
        self.followed[2 * self.window :] = after.cpu()

    def _learn_latent(
        self, options: LatentSpiralsOptions, study: Study, train: Series
    ) -> LatentODE:
        model = specs.draw_weights(
            lambda: LatentODE(
                2,
                options.latent_dim,
                hidden=options.hidden,
                encoder=options.encoder,
                encoder_hidden=options.encoder_hidden,
                noise=options.noise,
                **SOLVER,
            ),
            study.setting.seed,
        ).to(train.ys)
        training = LatentTraining(model, train, options.batch, options.steps, options.continuity)
        descent = Descent(
            torch.optim.Adam(model.parameters(), options.learning_rate),
            options.steps,
            training.batch,
            training.loss,
            rate=cosine(warm_up=min(0.02, 50 / options.steps)),
            clip=10.0,
            every=max(1, options.steps // N_LINES),
        )
        study.learn(f"latent ODE, {self.n_observed} observations", model, descent)
        return model

    def _learn_rnn(
        self, options: LatentSpiralsOptions, study: Study, train: Series
    ) -> RecurrentPredictor:
        model = specs.draw_weights(
            lambda: RecurrentPredictor(2, options.encoder_hidden, options.noise),
            study.setting.seed,
        ).to(train.ys)

        def loss(batch: Series) -> Tensor:
            return model.loss(batch.ys.transpose(0, 1), batch.ts.T)

        descent = Descent(
            torch.optim.Adam(model.parameters(), options.learning_rate),
            options.rnn_steps,
            lambda step, generator: train.draw(2 * options.batch, generator),
            loss,
            rate=cosine(),
            clip=10.0,
            every=max(1, options.rnn_steps // N_LINES),
        )
        study.learn(f"RNN, {self.n_observed} observations", model, descent)
        return model

    @property
    def whole(self) -> Tensor:
        """Of which test spirals the whole following window lies on the curve, bool [batch]."""
        return ~torch.isnan(self.truth[-1, :, 0])

    def rmse(self, expected: Tensor, part: slice, rows: Tensor | slice = slice(None)) -> float:
        """Root mean square error of a component, where the curve is."""
        errors = (expected - self.truth)[part][:, rows].square()
        return float(errors.nanmean().sqrt())

    def scores(self) -> dict[str, float]:
        """Errors before, in and after the observed window, by name."""
        before, inside, after = (slice(i * self.window, (i + 1) * self.window) for i in range(3))
        return {
            "latent ODE": self.rmse(self.expected, after, self.whole),
            "RNN": self.rmse(self.followed, after, self.whole),
            "latent ODE, where the curve goes on": self.rmse(self.expected, after),
            "RNN, where the curve goes on": self.rmse(self.followed, after),
            "latent ODE, in the observed window": self.rmse(self.expected, inside),
            "latent ODE, before the observed window": self.rmse(self.expected, before),
        }

    def follow(self, z0: Tensor) -> Tensor:
        """What latent starts [batch, latent_dim] are decoded to in the window, on the CPU."""
        with torch.no_grad():
            ts = self.ts[self.window : 2 * self.window].to(z0)
            return self.model.decode(z0, ts).cpu()

    def starts(self) -> Tensor:
        """The latent starts of the test spirals, [batch, latent_dim]."""
        with torch.no_grad():
            seen = self.observed.to(self.model.log_noise.device)
            return self.model.encode(seen.ys, seen.ts)[0]


def _draw(study: Study, learned: Sequence[_Learned]) -> None:
    least = learned[0]
    n = least.n_observed
    study.draw(
        "spirals.png",
        figures.spirals(
            least.test, least.observed, least.window, least.truth, least.expected, least.followed
        ),
        title="Seen in part.",
        caption=f"Four spirals that were held out, two of each direction: {n} noisy observations, "
        "what the latent ODE makes of them, and how it goes on both ways; the RNN feeds back its "
        "own predictions. Backwards, where it was not trained, a path may leave the picture.",
        alt="Observed, reconstructed and extrapolated spirals in the plane",
    )
    curves = {x.n_observed: (x.expected, x.followed, x.truth) for x in learned}
    study.draw(
        "errors.png",
        figures.errors(least.ts, least.window, curves),
        title="Error over time.",
        caption="Root mean square error of a component over the held-out spirals. Observations "
        "lie in the shaded window.",
        alt="Error against time for latent ODE and RNN",
    )
    starts = least.starts()
    clockwise = least.test.clockwise.to(starts.device)
    first, last = starts[clockwise][0], starts[~clockwise][0]
    shares = torch.linspace(0, 1, figures.N_BETWEEN).to(starts)
    between = first + shares[:, None] * (last - first)
    study.draw(
        "interpolation.png",
        figures.interpolation(least.follow(between)),
        title="From one direction to the other.",
        caption="Latent starts on the straight line from a clockwise spiral to a "
        "counter-clockwise one, decoded.",
        alt="Decoded paths of latent starts between two spirals",
    )


def _finish(study: Study, learned: Sequence[_Learned]) -> Studied:
    findings: list[Finding] = []
    result: dict[str, Any] = {}
    for x in learned:
        scores = x.scores()
        latent, rnn = scores["latent ODE"], scores["RNN"]
        published = PUBLISHED.get(x.n_observed, (None, None))
        what = f"{x.n_observed} observations"
        findings += [
            Finding(
                f"predictive RMSE, latent ODE, {what}",
                latent,
                target=published[0],
                published=published[0],
                source=SOURCE,
            ),
            Finding(f"predictive RMSE, RNN, {what}", rnn, published=published[1], source=SOURCE),
            Finding(
                f"error of the latent ODE over that of the RNN, {what}", latent / rnn, target=1.0
            ),
        ]
        result |= {f"RMSE, {what}, {name}": value for name, value in scores.items()}
        result[f"scored spirals, {what}"] = int(x.whole.sum())
    parts = [f"{number(x.scores()['latent ODE'], 2)} from {x.n_observed}" for x in learned]
    sentence = (
        f"The latent ODE predicts held-out spirals with an RMSE of {', '.join(parts)} observations."
    )
    return study.finish(
        sentence=sentence,
        predictions=pd.concat([_table(x) for x in learned], ignore_index=True),
        findings=findings,
        result=result,
        solver=SOLVER,
    )


def _table(learned: _Learned) -> pd.DataFrame:
    """Every test spiral before, in and after its window, one row a time."""
    n_times, batch = learned.truth.shape[:2]
    columns: dict[str, Any] = {
        "n_observed": learned.n_observed,
        "spiral": torch.arange(batch).expand(n_times, -1).T.flatten(),
        "t": learned.ts.expand(batch, -1).flatten(),
    }
    paths = {"true": learned.truth, "latent_ode": learned.expected, "rnn": learned.followed}
    for name, path in paths.items():
        for i, component in enumerate("xy"):
            columns[f"{component}_{name}"] = path[..., i].T.flatten()
    return pd.DataFrame(columns)
