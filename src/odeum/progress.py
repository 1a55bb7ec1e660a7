"""A bar that shows how far a solve has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from odeum.types import Tensor


@contextmanager
def progress_bar(ts: Tensor, *, enabled: bool) -> Iterator[Callable[[Tensor, Tensor], None] | None]:
    """A bar that follows the slowest row through its span."""
    if not enabled:
        yield None
        return
    from rich.progress import Progress  # imported where shown: it costs a tenth of a second

    start, end = ts[0].detach(), ts[-1].detach()
    with Progress(transient=True) as bar:
        task = bar.add_task("solving", total=1.0)

        def advance(rows: Tensor, t: Tensor) -> None:
            begin, stop = (x if x.ndim == 0 else x[rows] for x in (start, end))
            bar.update(task, completed=float(((t.squeeze(-1) - begin) / (stop - begin)).min()))

        yield advance
        bar.update(task, completed=1.0)
