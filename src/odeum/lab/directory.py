"""The run directory: where it is, what its config.json and data.csv say, whether it may be resumed.

Owns the refusal to mix two runs. What training and finishing write there is theirs.
"""

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from odeum.datasets import Trajectories, Trajectory
from odeum.errors import InputError
from odeum.files import write_whole
from odeum.lab.files import finite, write_json

CONFIG = "config.json"
DATA = "data.csv"

_MAY_DIFFER = ("command", "title")
"""Entries of the configuration that do not change what is learned."""


def prepare(
    out: str | Path | None,
    name: str,
    config: dict[str, Any],
    data: Trajectories | None,
    *,
    resume: bool,
) -> Path:
    """Make a run directory that holds the configuration and the data, or check the one to resume.

    Args:
        out: the folder; None for the first free ``runs/<name>-<n>``.
        name: of the run.
        config: everything needed to repeat the run; see :func:`describe_data` for its "data".
        data: what is learned from; None where that is no table of trajectories.
        resume: continue the run in ``out``, where there is one.

    Returns:
        The folder.

    Raises:
        InputError: if ``out`` holds files and ``resume`` is False, holds another run than this
            one, or cannot be written.
    """
    if out is None:
        if resume:
            raise InputError("resume needs out: the folder of the run to continue")
        folder = make_numbered(name)
    else:
        folder = Path(out)
        if (folder / CONFIG).is_file() and resume:
            _refuse_other_run(folder, config)
            for part in folder.glob(".*.part"):  # a kill leaves what was being written
                part.unlink(missing_ok=True)
        else:
            _make(folder)
    if not (folder / CONFIG).exists():
        write_json(folder / CONFIG, config)
    if data is not None and not (folder / DATA).exists():
        frame = data.to_frame()
        write_whole(folder / DATA, lambda part: frame.to_csv(part, index=False))
    return folder


def describe_data(data: Trajectories) -> dict[str, Any]:
    """What config.json says of the data, a fingerprint of every number included.

    Args:
        data: the trajectories.
    """
    digest = hashlib.sha256()
    for trajectory in data:
        digest.update(trajectory.name.encode())
        for values in (trajectory.t, trajectory.y):
            # One pattern of bits for every NaN.
            digest.update(torch.where(values.isnan(), torch.nan, values).cpu().numpy().tobytes())
    return {
        "source": data.source,
        "time": data.time_name,
        "states": list(data.state_names),
        "group": data.group_name,
        "trajectories": [trajectory.name for trajectory in data],
        "n_rows": sum(len(trajectory) for trajectory in data),
        "sha256": digest.hexdigest(),
    }


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run.

    Args:
        run_dir: its folder.

    Raises:
        InputError: if there is none, or it is damaged.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise InputError(f"{run_dir} is no run directory: it holds no {CONFIG}")
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Args:
        path: of the file.

    Raises:
        InputError: if it cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def read_data(run_dir: Path, config: dict[str, Any]) -> Trajectories:
    """The data a run learned from, to the last bit.

    Args:
        run_dir: its folder.
        config: its configuration.

    Raises:
        InputError: if data.csv is missing or not what the configuration says.
    """
    described = config["data"]
    time, group, states = described["time"], described["group"], described["states"]
    path = run_dir / DATA
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        # Python's own reading of numbers is exact; pandas' need not be.
        frame[[time, *states]] = frame[[time, *states]].replace("", "nan").map(float)
        names = described["trajectories"]
        parts = [frame[frame[group] == name] if group else frame for name in names]
        data = Trajectories(
            tuple(
                Trajectory(
                    name,
                    torch.tensor(part[time].to_numpy(dtype=float), dtype=torch.float64),
                    torch.tensor(part[states].to_numpy(dtype=float), dtype=torch.float64),
                )
                for name, part in zip(names, parts, strict=True)
            ),
            time,
            tuple(states),
            group,
            described["source"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if describe_data(data)["sha256"] != described["sha256"]:
        raise InputError(f"{path} is not the data that the run learned from: it was changed")
    return data


def file_name(name: str) -> str:
    """``name`` as a folder can be called everywhere.

    Example:
        >>> file_name("lynx & hare (1900)")
        'lynx-hare-1900'
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "run"


def make_numbered(name: str) -> Path:
    """Make the first free ``runs/<name>-<n>``: two runs started at once get two folders.

    Args:
        name: of the run.

    Returns:
        The folder, empty.

    Raises:
        InputError: if it cannot be made.
    """
    for n in itertools.count(1):
        folder = Path("runs") / f"{file_name(name)}-{n}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(folder, error) from error
        return folder
    raise AssertionError("counting does not end")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise _unwritable(folder, error) from error
    if occupied:
        hint = " or continue it with resume" if (folder / CONFIG).is_file() else ""
        raise InputError(f"{folder} already holds files: choose another folder for the run{hint}")


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be written ({error.strerror}): choose another folder")


def _refuse_other_run(folder: Path, config: dict[str, Any]) -> None:
    old, new = (_flat(x) for x in (read_config(folder), finite(config)))
    differences = [
        _difference(key, old.get(key), new.get(key))
        for key in [*old, *(key for key in new if key not in old)]
        if key not in _MAY_DIFFER and old.get(key) != new.get(key)
    ]
    if not differences:
        return
    more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
    raise InputError(
        f"{folder} holds another run, which cannot be continued as this one: "
        f"{'; '.join(differences[:3])}{more}. Give it what it was started with, or choose another "
        "folder"
    )


def _difference(key: str, old: Any, new: Any) -> str:
    text = f"{key} was {old!r} and is now {new!r}"
    return text if len(text) <= 100 else f"{key} differs"


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries under dotted names."""
    entries: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, dict):
            entries |= _flat(entry, f"{prefix}{key}.")
        else:
            entries[prefix + key] = entry
    return entries
