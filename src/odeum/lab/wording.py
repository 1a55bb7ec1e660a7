"""Numbers, times and keys as a reader wants them: true minus signs, a dash for what is missing.

Used by the report; knows nothing of runs or of HTML.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

DASH = "—"


def number(value: Any, n_digits: int = 4, *, trim: bool = False) -> str:
    """A number to ``n_digits`` significant digits, a dash where there is none.

    Args:
        value: a number; anything else, None, NaN and infinities give the dash.
        n_digits: significant digits, at least 1.
        trim: leave out zeros that end the decimals, as prose does and columns do not.

    Returns:
        The text, with a true minus sign.

    Example:
        >>> number(0.98765), number(-12345.678), number(3e-7), number(float("nan"))
        ('0.9877', '−12,346', '3e−07', '—')
        >>> number(0.0029), number(0.0029, trim=True)
        ('0.002900', '0.0029')
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    if isinstance(value, int) or value == 0:
        text = f"{value:,}" if abs(value) < 1e9 else f"{value:.{n_digits}g}"
    elif 1e-4 <= abs(value) < 1e7:
        n_decimals = max(0, n_digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{n_decimals}f}"
        if trim and "." in text:
            text = text.rstrip("0").rstrip(".")
    else:
        text = f"{value:.{n_digits}g}"
    return _minus(text)


def quantity(value: Any, unit: str | None = "", n_digits: int = 3) -> str:
    """A number with its unit, a dash where there is none.

    Example:
        >>> quantity(0.42, "%"), quantity(1.5, "s"), quantity(None, "s")
        ('0.42%', '1.5 s', '—')
    """
    text = number(value, n_digits, trim=True)
    if text == DASH or not unit:
        return text
    return text + unit if unit == "%" else f"{text} {unit}"


def prose(value: Any) -> str:
    """A value within a sentence or a list: text as it is, numbers without trailing zeros.

    Example:
        >>> prose("tsit5"), prose(0.5), prose(None)
        ('tsit5', '0.5', '—')
    """
    return value if isinstance(value, str) else number(value, trim=True)


def r2(value: float) -> str:
    """R² to three decimals; a hopeless one in short.

    Example:
        >>> r2(0.97649), r2(-31234567.0)
        ('0.976', '−3.1e+07')
    """
    return _minus(f"{value:.3f}") if abs(value) < 100 else number(value, 2)


def matrix(rows: Sequence[Sequence[float | None]]) -> list[list[str]]:
    """A matrix with as many decimals everywhere as give its largest entry four digits.

    Args:
        rows: [n, m]; None and NaN give the dash.

    Returns:
        The entries as text, [n, m].

    Example:
        >>> matrix([[-0.10004, 1.0], [-1e-9, None]])
        [['−0.100', '1.000'], ['0.000', '—']]
    """
    sizes = [abs(x) for row in rows for x in row if x is not None and math.isfinite(x)]
    largest = max(sizes, default=0.0)
    if largest == 0 or not 1e-3 <= largest < 1e6:
        return [[number(x) for x in row] for row in rows]
    n_decimals = max(0, 3 - math.floor(math.log10(largest)))

    def entry(x: float | None) -> str:
        if x is None or not math.isfinite(x):
            return DASH
        # Adding 0.0 turns a negative zero into zero.
        return _minus(f"{round(x, n_decimals) + 0.0:.{n_decimals}f}")

    return [[entry(x) for x in row] for row in rows]


def cell(text: str) -> str:
    """A cell of a CSV file: long decimals shortened, integers, years and words as they are.

    Example:
        >>> cell("30.1234567"), cell("1900.0"), cell("1900"), cell("")
        ('30.1235', '1900', '1900', '—')
    """
    if not text or text.lower() in ("nan", "none"):
        return DASH
    if "." in text or "e" in text.lower():
        try:
            return number(float(text), 6, trim=True).replace(",", "")
        except ValueError:
            return text
    return text


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(7.25), duration(72.3), duration(7300)
        ('7.2 s', '1 min 12 s', '2 h 1 min')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(iso_time: Any) -> str | None:
    """An ISO time as date and minute; other text as it is, None as None.

    Example:
        >>> moment("2026-01-02T10:11:12+00:00")
        '2026-01-02 10:11 UTC'
    """
    try:
        return f"{datetime.fromisoformat(iso_time):%Y-%m-%d %H:%M %Z}".strip()
    except (TypeError, ValueError):
        return None if iso_time is None else str(iso_time)


def words(name: str) -> str:
    """A key of the summary as words.

    Example:
        >>> words("n_rejected"), words("evaluations_per_epoch")
        ('rejected', 'evaluations per epoch')
    """
    return name.removeprefix("n_").replace("_", " ")


def _minus(text: str) -> str:
    return text.replace("-", "−")
