"""Reading files: what is understood without being told, and every way a file can be wrong."""

import datetime
import math
import re
import string
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odeum.datasets import read
from odeum.errors import DataError

NAN = math.nan
LYNX_HARE = Path(__file__).parents[2] / "examples" / "data" / "lynx_hare.csv"


@pytest.fixture
def write(tmp_path):
    """Write text (or bytes) to a file and give its path."""

    def write(content, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def refusal(path, **options):
    """The one-line message with which a file is refused; it names the file."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def values(data):
    """Times and states of the only trajectory, as nested lists with None for NaN."""
    (only,) = data
    states = [[None if math.isnan(cell) else cell for cell in row] for row in only.y.tolist()]
    return only.t.tolist(), states


# --- what is understood -------------------------------------------------------------------------


def test_hudson_bay_record():
    data = read(LYNX_HARE, time="year")
    assert (data.time_name, data.state_names, data.group_name) == ("year", ("hare", "lynx"), None)
    assert data.source == str(LYNX_HARE)
    (only,) = data
    assert only.name == "lynx_hare"
    assert only.t.tolist() == list(range(1900, 1921))
    assert only.y[0].tolist() == [30.0, 4.0]
    assert data.n_observed == 42


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", "year,hare,lynx\n1900,30.5,4\n1901,,6.25\n"),
        ("upper.CSV", "year,hare,lynx\n1900,30.5,4\n1901,,6.25\n"),
        ("no_final_newline.csv", "year,hare,lynx\n1900,30.5,4\n1901,,6.25"),
        ("crlf.csv", "year,hare,lynx\r\n1900,30.5,4\r\n1901,,6.25\r\n"),
        ("bom.csv", "\ufeffyear,hare,lynx\n1900,30.5,4\n1901,,6.25\n"),
        ("semicolons.csv", "year;hare;lynx\n1900;30.5;4\n1901;;6.25\n"),
        ("decimal_commas.csv", "year;hare;lynx\n1900;30,5;4\n1901;;6,25\n"),
        ("bom_semicolons_crlf.csv", "\ufeffyear;hare;lynx\r\n1900;30,5;4\r\n1901;;6,25\r\n"),
        ("tabs.tsv", "year\thare\tlynx\n1900\t30.5\t4\n1901\t\t6.25\n"),
        ("tabs.txt", "year\thare\tlynx\n1900\t30,5\t4\n1901\t\t6,25\n"),
        ("bars.txt", "year|hare|lynx\n1900|30.5|4\n1901||6.25\n"),
        ("spaces.txt", "year hare  lynx\n 1900 30.5 4\n1901 NA   6.25 \n"),
        ("quotes.csv", '"year","hare","lynx"\n"1900","30.5","4"\n"1901","","6.25"\n'),
        ("padded.csv", 'year, "hare" , lynx\n1900 , 30.5, 4\n1901,  , 6.25\n'),
        ("blank_lines.csv", "\n\nyear,hare,lynx\n\n1900,30.5,4\n,,\n1901,,6.25\n\n"),
        ("blank_cells_above.csv", ",,\nyear,hare,lynx\n1900,30.5,4\n1901,,6.25\n"),
        ("exponents.csv", "year,hare,lynx\n1.9e3,+305E-1,4.\n1901,,.625e1\n"),
        ("unnamed_index.csv", ",year,hare,lynx\n0,1900,30.5,4\n1,1901,,6.25\n"),
        ("trailing.csv", "year,hare,lynx,\n1900,30.5,4,\n1901,,6.25,\n"),
        ("labels.csv", "year,place,hare,lynx\n1900,north,30.5,4\n1901,south,,6.25\n"),
        ("notes.csv", "year,hare,lynx,note\n1900,30.5,4,\n1901,,6.25,a hard winter\n"),
        ("shuffled.csv", "year,hare,lynx\n1901,,6.25\n1900,30.5,4\n"),
        ("short_row.csv", "year,lynx,hare\n1900,4,30.5\n1901,6.25\n"),
    ],
)
def test_one_record_in_many_guises(write, name, content):
    data = read(write(content, name), states=("hare", "lynx") if "short" in name else None)
    assert (data.time_name, data.state_names) == ("year", ("hare", "lynx"))
    assert values(data) == ([1900.0, 1901.0], [[30.5, 4.0], [None, 6.25]])


@pytest.mark.parametrize("hole", ["", " ", "NA", "nan", "NaN", "null", "None", "N/A"])
def test_empty_cells_stay_empty(write, hole):
    data = read(write(f"t,u,v\n0,1,2\n1,{hole},3\n2,{hole},{hole}\n3,4,5\n"))
    assert values(data) == ([0, 1, 2, 3], [[1, 2], [None, 3], [None, None], [4, 5]])


def test_states_are_chosen_and_ordered_by_the_user(write):
    path = write("t,u,v,w\n0,1,2,bad\n1,3,4,5\n")
    data = read(path, states=["v", "u"])
    assert data.state_names == ("v", "u")
    assert values(data)[1] == [[2, 1], [4, 3]]
    assert read(path, states="v").state_names == ("v",)


def test_groups_keep_their_order_and_are_sorted_by_time(write):
    path = write("site,t,u\nnorth,2,1\nNA,0,2\nnorth,1,3\nNA,5,4\n1,0,5\n1,1,6\n")
    data = read(path, group="site")
    assert [item.name for item in data] == ["north", "NA", "1"]
    assert [item.t.tolist() for item in data] == [[1, 2], [0, 5], [0, 1]]
    assert [item.y[:, 0].tolist() for item in data] == [[3, 1], [2, 4], [5, 6]]
    assert data.group_name == "site"
    assert data.state_names == ("u",)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("u,time", "time"),
        ("u,Time", "Time"),
        ("u,T", "T"),
        ("T,year", "year"),
        ("u,time [s]", "time [s]"),
        ("u,Year (AD)", "Year (AD)"),
        ("t,time", "time"),
        ("u,when", "when"),
    ],
)
def test_the_time_column_is_found(write, header, expected):
    assert read(write(f"{header}\n3,0\n2,1\n4,2\n")).time_name == expected


def test_an_unnamed_time_must_increase_within_every_group(write):
    content = "run,u,when\na,0,5\na,1,6\nb,1,1\nb,1,2\n"
    assert read(write(content), group="run").time_name == "when"
    assert "found no time column" in refusal(write("u,when\n0,5\n0,6\n1,6\n"))


def test_a_column_of_dates_is_the_time_whatever_its_name(write):
    data = read(write("Wert;Datum\n1,5;2020-01-03\n2,5;2020-01-02\n"))
    assert data.time_name == "Datum [days since 2020-01-02]"
    assert values(data) == ([0, 1], [[2.5], [1.5]])


def test_dates_become_days_and_the_name_says_so(write):
    path = write("date,u\n2020-01-03,1\n2020-01-01,2\n2020-01-01T12:00:00,3\n")
    data = read(path)
    assert data.time_name == "date [days since 2020-01-01]"
    assert values(data) == ([0.0, 0.5, 2.0], [[2], [3], [1]])
    later = write("date,u\n2020-02-01,1\n2020-03-01,2\n", "later.csv")
    again = read(later, time=data.time_name)
    assert again.time_name == data.time_name
    assert values(again)[0] == [31.0, 60.0]
    saved = write(data.to_frame().to_csv(index=False), "saved.csv")
    assert values(read(saved, time=data.time_name)) == values(data)


def test_a_first_instant_that_is_no_midnight_is_kept_in_the_name(write):
    data = read(write("when,u\n2020-01-01 06:30,1\n2020-01-02 06:30,2\n"), time="when")
    assert data.time_name == "when [days since 2020-01-01T06:30:00]"
    assert values(data)[0] == [0.0, 1.0]


def test_dates_are_counted_from_the_first_of_the_file(write):
    data = read(write("g,date,u\na,2020-01-02,1\na,2020-01-03,1\nb,2020-01-01,1\nb,2020-01-05,1\n"),
                group="g")  # fmt: skip
    assert [item.t.tolist() for item in data] == [[1, 2], [0, 4]]


def test_a_single_start_can_be_read_for_prediction(write):
    path = write("t,u,v\n0,1,2\n1,,\n2,,\n")
    assert "1 row with an observed state, at least 2" in refusal(path)
    assert values(read(path, min_observed=1)) == ([0, 1, 2], [[1, 2], [None] * 2, [None] * 2])


# --- round trips --------------------------------------------------------------------------------

column_names = st.text(string.ascii_letters + "_ é", min_size=1, max_size=6).map(str.strip)
cells = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def frames(draw):
    """A table of one or several groups, sorted, with holes, every group observed twice."""
    n_groups, dim = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    names = draw(
        st.lists(column_names.filter(bool), min_size=dim + 2, max_size=dim + 2, unique=True)
    )
    columns = {name: [] for name in names}
    for group in range(n_groups):
        times = sorted(draw(st.sets(cells.map(lambda x: x + 0.0), min_size=2, max_size=8)))
        columns[names[0]] += [f"run {group}"] * len(times)
        columns[names[1]] += times
        for name in names[2:]:
            holed = draw(
                st.lists(st.one_of(cells, st.just(NAN)), min_size=len(times), max_size=len(times))
            )
            columns[name] += draw(st.lists(cells, min_size=2, max_size=2)) + holed[2:]
    return pd.DataFrame(columns)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frame=frames(), seed=st.integers(0, 99), delimiter=st.sampled_from(",;\t|"))
def test_what_was_written_is_read(tmp_path, frame, seed, delimiter):
    group, time, *states = frame.columns
    path = tmp_path / "data.csv"
    shuffled = frame.sample(frac=1, random_state=seed)
    decimal = "," if delimiter == ";" else "."
    shuffled.to_csv(path, index=False, sep=delimiter, decimal=decimal)
    back = read(path, time=time, states=states, group=group).to_frame()
    back = back.sort_values(group, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_dtype=False)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20
)
@given(frame=frames(), seed=st.integers(0, 99))
def test_parquet_reads_as_csv_does(tmp_path, frame, seed):
    group, time, *states = frame.columns
    shuffled = frame.sample(frac=1, random_state=seed)
    shuffled.to_csv(tmp_path / "data.csv", index=False)
    shuffled.to_parquet(tmp_path / "data.parquet")
    options = {"time": time, "states": states, "group": group}
    from_csv = read(tmp_path / "data.csv", **options).to_frame()
    from_parquet = read(tmp_path / "data.parquet", **options).to_frame()
    pd.testing.assert_frame_equal(from_parquet, from_csv, check_exact=True)


def test_parquet_types(tmp_path):
    path = tmp_path / "typed.parquet"
    pd.DataFrame(
        {
            "run": [1, 1, 2, 2],
            "date": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01", "2020-01-04"]),
            "whole": pd.array([1, None, 3, 4], dtype="Int64"),
            "text": ["0.5", None, " 2 ", "nan"],
            "small": np.array([1, 2, 3, 4], dtype=np.float32),
            "label": ["a", "b", None, "d"],
        }
    ).to_parquet(path)
    data = read(path, group="run")
    assert [item.name for item in data] == ["1", "2"]
    assert data.time_name == "date [days since 2020-01-01]"
    assert data.state_names == ("whole", "text", "small")
    np.testing.assert_equal(
        np.concatenate([item.y.numpy() for item in data]),
        [[1, 0.5, 1], [NAN, NAN, 2], [3, 2, 3], [4, NAN, 4]],
    )
    assert [item.t.tolist() for item in data] == [[0, 1], [0, 3]]


def test_parquet_keeps_a_named_index_as_a_column(tmp_path):
    path = tmp_path / "indexed.parquet"
    index = pd.Index([0.0, 1.0], name="t")
    pd.DataFrame({"u": [1.0, 2.0]}, index=index).to_parquet(path)
    assert values(read(path)) == ([0, 1], [[1], [2]])


def test_parquet_dates_without_times(tmp_path):
    path = tmp_path / "dates.parquet"
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 11)]
    pd.DataFrame({"date": days, "u": [1.0, 2.0]}).to_parquet(path)
    assert values(read(path))[0] == [0, 10]


# --- what is refused: the file -------------------------------------------------------------------


def test_missing_file_suggests_its_neighbours(write):
    path = write("t,u\n0,1\n1,2\n", "lynx_hare.csv")
    message = refusal(path.with_name("lynx_hair.csv"))
    assert message == "no such file; did you mean 'lynx_hare.csv'?"
    assert refusal(path.with_name("zzz.parquet")) == "no such file"
    assert "no folder" in refusal(path.parent / "nowhere" / "data.csv")


def test_folder(write):
    path = write("t,u\n0,1\n1,2\n")
    assert refusal(path.parent) == "is a folder; give a file, for example one of: data.csv"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "  \n", " ", ",,\n,,\n"])
def test_empty_file(write, content):
    assert refusal(write(content)) == "the file is empty"


@pytest.mark.parametrize("content", ["t,u\n", "t,u", "t,u\n,\n\n"])
def test_header_only(write, content):
    assert refusal(write(content)) == "has column names but no rows under them"


def test_no_header(write):
    assert "the first line holds numbers where the column names should be" in refusal(
        write("0,1\n1,2\n2,3\n")
    )


@pytest.mark.parametrize("name", ["data.xlsx", "data.json", "data"])
def test_unsupported_suffix(write, name):
    message = refusal(write("t,u\n0,1\n", name))
    assert "not read; save the table as one of: .csv, .tsv, .txt, .parquet" in message


def test_other_encodings(write):
    path = write("t,höhe\n0,1\n1,2\n", encoding="latin-1")
    assert refusal(path).startswith("line 1: the text is not UTF-8; save the file")
    assert "not UTF-8" in refusal(write("t,u\n0,1\n", encoding="utf-16"))
    assert "binary data" in refusal(write("t,u\n0,\0\n"))


def test_unreadable_file(write, monkeypatch):
    def deny(self):
        raise PermissionError(13, "Permission denied")

    path = write("t,u\n0,1\n")
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert refusal(path) == "cannot be read: Permission denied"


def test_ragged_rows_and_open_quotes(write):
    assert "Expected 2 fields in line 3, saw 3" in refusal(write("t,u\n0,1\n1,2,3\n"))
    assert "not a table" in refusal(write('t,u\n0,"1\n1,2\n'))


@pytest.mark.parametrize("content", [b"", b"this is no parquet file", b"PAR1PAR1"])
def test_corrupt_parquet(write, content):
    assert "not a readable Parquet file" in refusal(write(content, "data.parquet"))


def test_parquet_without_pyarrow(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = refusal(write(b"", "data.parquet"))
    assert message == "reading Parquet needs pyarrow: pip install 'odeum[parquet]'"


def test_parquet_without_rows(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"t": [], "u": []}).to_parquet(path)
    assert "no rows" in refusal(path)


# --- what is refused: columns ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"time": "yaer"}, {"states": ["hare", "yaer"]}, {"group": "yaer"}]
)
def test_no_such_column(write, options):
    message = refusal(write("year,hare\n0,1\n1,2\n"), **options)
    assert message == "unknown column 'yaer': did you mean 'year'? Known: hare, year"


def test_duplicate_column_names(write):
    path = write("t,u,u\n0,1,2\n1,2,3\n")
    assert refusal(path) == "two columns are called 'u': rename one of them"


@pytest.mark.parametrize(
    "options",
    [
        {"states": ["u", "u"]},
        {"time": "u", "states": ["u"]},
        {"group": "u", "states": ["u"]},
        {"time": "u", "group": "u"},
    ],
)
def test_one_column_for_two_things(write, options):
    message = refusal(write("t,u\n0,1\n1,2\n"), **options)
    assert message == "column 'u': is named twice among time, states and group"


def test_no_time_column(write):
    message = refusal(write("u,v\n1,2\n0,1\n3,5\n"))
    assert message == "found no time column: name it with time= (--time). Columns: u, v"


def test_nothing_but_time_and_labels(write):
    assert "no column of numbers besides the time" in refusal(write("t,u\n0,a\n1,b\n"))


@pytest.mark.parametrize("options", [{}, {"states": ["u"]}, {"states": ["v", "u"]}])
def test_empty_column(write, options):
    message = refusal(write("t,u,v\n0,,1\n1,NA,2\n"), **options)
    assert message.startswith("column 'u': is empty in every row")


def test_all_cells_empty(write):
    assert "column 'u': is empty in every row" in refusal(write("t,u,v\n0,,\n1,,\n"))


# --- what is refused: cells -----------------------------------------------------------------------


def test_text_in_a_number_column(write):
    path = write("year,hare,lynx\n" + "".join(f"{y},1,2\n" for y in range(5)) + "5,abc,3\n")
    expected = "line 7, column 'hare': 'abc' is not a number"
    assert refusal(path).startswith(expected)
    assert refusal(path, states=["hare"]).startswith(expected)
    assert read(path, states=["lynx"]).state_names == ("lynx",)


@pytest.mark.parametrize("cell", ["1_000", "0x10", "1 2", "12%", "1e", "--1", "1,5", "1.2.3", "5a"])
def test_what_is_no_number(write, cell):
    message = refusal(write(f't,u\n0,1\n1,"{cell}"\n'))
    assert message.startswith(f"line 3, column 'u': {cell!r} is not a number")


def test_a_named_label_is_no_state(write):
    message = refusal(write("t,u,place\n0,1,north\n1,2,south\n"), states=["place"])
    assert message.startswith("line 2, column 'place': 'north' is not a number")


def test_points_among_decimal_commas(write):
    """1.234 would be a thousand in one half of the world; neither reading is guessed."""
    message = refusal(write("t;u\n0;1,5\n1;1.234\n"))
    assert "line 3, column 'u': '1.234' is not a number; this file writes decimals" in message
    assert "'1.234,5' is not a number" in refusal(write("t;u\n0;1,5\n1;1.234,5\n"))


def test_lines_are_counted_as_an_editor_does(write):
    path = write('\nt,u,note\n0,1,"two\nlines"\n\n1,2,x\n2,oops,y\n')
    assert refusal(path).startswith("line 7, column 'u': 'oops'")
    crlf = write('t,u,note\r\n0,1,"two\r\nlines"\r\n2,oops,y\r\n', "crlf.csv")
    assert refusal(crlf).startswith("line 4, column 'u': 'oops'")


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999"])
def test_infinite_values(write, cell):
    message = refusal(write(f"t,u\n0,1\n1,{cell}\n2,2\n"))
    assert message == f"line 3, column 'u': {cell!r} is not finite"
    message = refusal(write(f"t,u\n0,1\n1,5\n{cell},2\n"))
    assert message == f"line 4, column 't': {cell!r} is not finite"


def test_duplicate_times(write):
    message = refusal(write("t,u\n0,1\n2,1\n1,5\n1.0,2\n"))
    assert message.startswith("line 5, column 't': time 1.0 was already given in line 4; name the")
    assert "--group" in message


def test_duplicate_times_within_a_group(write):
    message = refusal(write("t,u,g\n0,1,a\n0,1,b\n1,5,a\n1,2,b\n0,3,b\n"), group="g")
    assert message == "line 6, column 't': time 0 was already given in g 'b' in line 3"


def test_missing_time(write):
    assert refusal(write("t,u\n0,1\n,2\n2,3\n")) == "line 3, column 't': the time is missing"
    dated = write("date,u\n2020-01-01,1\nNA,2\n")
    assert refusal(dated) == "line 3, column 'date': the time is missing"


def test_missing_group(write):
    message = refusal(write("t,u,g\n0,1,a\n1,2,\n"), group="g")
    assert message == "line 3, column 'g': the cell is empty: which trajectory is it?"


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["0", "1", "soon"], "line 4, column 't': 'soon' is not a number"),
        (["2020-01-01", "2020-01-32", "2020-02-01"],
         "line 3, column 't': '2020-01-32' is not an ISO date such as 2020-01-31"),
        (["01/02/2020", "02/02/2020", "03/02/2020"],
         "line 2, column 't': '01/02/2020' is not a number"),
    ],
)  # fmt: skip
def test_text_in_the_time_column(write, times, message):
    rows = "".join(f"{time},{i}\n" for i, time in enumerate(times))
    assert refusal(write(f"t,u\n{rows}")).startswith(message)


def test_dated_time_that_is_not_there(write):
    path = write("date,u\n0,1\n1.5,2\n")
    message = refusal(path, time="date [days since 2020-01-01]")
    assert message == "line 2, column 'date': '0' is not an ISO date such as 2020-01-31"
    assert "no ISO date" in refusal(path, time="date [days since ever]")


def test_single_row(write):
    message = refusal(write("t,u\n0,1\n"))
    assert message == "1 row with an observed state, at least 2 are needed"
    message = refusal(write("g,t,u\na,0,1\na,1,2\nb,0,1\nb,1,\n"), group="g")
    assert message == "1 row with an observed state in g 'b', at least 2 are needed"


def test_parquet_faults_name_the_row(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"t": [0.0, 1.0, 2.0], "u": [1.0, 2.0, math.inf]}).to_parquet(path)
    assert re.fullmatch("row 3, column 'u': 'inf' is not finite", refusal(path))
    pd.DataFrame({"t": [0.0, NAN, 2.0], "u": ["1", "2", "x"]}).to_parquet(path)
    assert refusal(path) == "row 2, column 't': the time is missing"
    pd.DataFrame({"t": [0.0, 1.0, 2.0], "u": ["1", "2", "x"]}).to_parquet(path)
    assert refusal(path).startswith("row 3, column 'u': 'x' is not a number")
