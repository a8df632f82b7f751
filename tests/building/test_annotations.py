"""Annotation files in all the dialects in which they are published."""

import hypothesis
import pytest
from hypothesis import strategies as st

from tfavmae.building import annotations as lib
from tfavmae.errors import UserError

COLUMNS = ("id", "start", "label", "split")


def table(tmp_path, content, encoding="utf-8", **options):
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode(encoding))
    return list(lib.read_table(path, options.pop("columns", COLUMNS), **options))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("head", ["", "id,start,label,split", "ID, Start ,label,split"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_headers_and_byte_order_marks(end, head, mark, tmp_path):
    lines = [*filter(None, [head]), "--a,1,people marching,test", '-b,2,"x, y",train']
    rows = table(tmp_path, mark + end.join(lines) + end)
    assert [dict(row) for row in rows] == [
        {"id": "--a", "start": "1", "label": "people marching", "split": "test"},
        {"id": "-b", "start": "2", "label": "x, y", "split": "train"},
    ]
    first = 2 if head else 1
    assert [row.where for row in rows] == [
        f"table.csv line {first}",
        f"table.csv line {first + 1}",
    ]


def test_a_header_may_order_its_columns_differently_and_have_more(tmp_path):
    (row,) = table(tmp_path, "split,note,label,id,start\ntrain,,hail,-x,7\n")
    assert row["id"] == "-x" and row["label"] == "hail" and row["note"] == ""


def test_a_header_without_a_column_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no column split. Found: id, start, label"):
        table(tmp_path, "id,start,label\na,1,b\n")
    with pytest.raises(UserError, match="no column"):
        table(tmp_path, "a,1,b,train\n", header=True)


def test_commas_that_were_not_quoted_go_to_the_greedy_column(tmp_path):
    rows = table(tmp_path, "a,1,bee, wasp, etc. buzzing,train\n", greedy="label")
    assert rows[0]["label"] == "bee, wasp, etc. buzzing"
    (row,) = table(tmp_path, "a,1,bee, wasp,train\n")
    assert row.problem == "has 5 cells instead of 4" and not row


def test_audiosets_comments_and_quotes_after_spaces(tmp_path):
    content = (
        "# Segments csv created Sun Mar  5 10:54:31 2017\n"
        "# num_ytids=1, num_segs=1, num_unique_labels=527, num_positive_labels=2\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    )
    columns = ("ytid", "start_seconds", "end_seconds", "positive_labels")
    (row,) = table(tmp_path, content, columns=columns, comment="#")
    assert row["ytid"] == "--PJHxphWEs"
    assert row.segment("start_seconds", "end_seconds") == (30.0, 40.0)
    assert row["positive_labels"] == "/m/09x0r,/t/dd00088"


def test_ampersands_with_and_without_header(tmp_path):
    columns = ("category", "videoid", "quality", "starttime", "endtime")
    line = "Male speech, man speaking&-Uh&good&0&10\n"
    head = "Category&VideoID&Quality&StartTime&EndTime\n"
    for content in (line, head + line):
        (row,) = table(tmp_path, content, columns=columns, delimiter="&")
        assert row["category"] == "Male speech, man speaking"
        assert row["videoid"] == "-Uh" and row.number("endtime") == 10


def test_iso_8859_1_is_found_out(tmp_path):
    (row,) = table(tmp_path, "a,1,caf\xe9,train\n", "iso-8859-1")
    assert row["label"] == "café"
    (row,) = table(tmp_path, "a,1,café,train\n", "utf-8")
    assert row["label"] == "café"


def test_an_encoding_is_judged_by_the_whole_file(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"x" * (2**20 - 1) + "é".encode())  # across two chunks
    assert lib.encoding_of(path) == "utf-8-sig"
    path.write_bytes(b"x" * (2**21) + b"\xe9")
    assert lib.encoding_of(path) == "iso-8859-1"


def test_an_unreadable_table_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none.csv: cannot be read: No such file"):
        list(lib.read_table(tmp_path / "none.csv", COLUMNS))
    with pytest.raises(UserError, match="is not a table"):
        table(tmp_path, f"a,1,{'x' * 200_000},train\n")


@hypothesis.given(content=st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_a_file_holds_it_is_rows_or_one_line(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "whatever.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        rows = list(lib.read_table(path, COLUMNS, greedy="label"))
    except UserError as error:
        assert "whatever.csv" in str(error)
        return
    assert all(set(row) >= set(COLUMNS) or row.problem for row in rows)


@pytest.mark.parametrize(
    "cell, complaint",
    [
        ("ten", "start is not a number: 'ten'"),
        ("-1", "start is negative or not finite: '-1'"),
        ("nan", "start is negative or not finite: 'nan'"),
        ("inf", "start is negative or not finite: 'inf'"),
    ],
)
def test_numbers_that_are_none(cell, complaint):
    with pytest.raises(lib.BadRow, match=complaint):
        lib.TableRow({"start": cell}, "x").number("start")


@pytest.mark.parametrize(
    "segment, complaint", [((3, 3), "zero length: 3 to 3 s"), ((4, 3), "ends before")]
)
def test_segments_without_length(segment, complaint):
    with pytest.raises(lib.BadRow, match=complaint):
        lib.checked_segment(*segment)


def test_rows_that_cannot_be_used_stay_as_clips_with_a_problem(tmp_path):
    rows = table(tmp_path, "a,1,hail,train\nb,2,snow,train\nc,3\n")

    def to_clip(row):
        label = lib.known_label(row["label"], {"hail"})
        return lib.AnnotatedClip(row["id"], "train", {}, labels={"label": label})

    clips = list(lib.to_clips(rows, to_clip, "train"))
    assert [clip.problem for clip in clips] == [
        None,
        "the label 'snow' is not in the label map",
        "has 2 cells instead of 4",
    ]
    assert [clip.where for clip in clips] == [f"table.csv line {i}" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    "text, value",
    [
        ("['plate', 'board']", ["plate", "board"]),
        ("[2, 1]", [2, 1]),
        ("", []),
        ("('a',)", ["a"]),
    ],
)
def test_lists_as_python_writes_them(text, value):
    assert lib.parse_list(text) == value


@pytest.mark.parametrize("text", ["{'a': 1}", "['a'", "__import__('os')", "[" * 5000])
def test_lists_are_never_run(text):
    with pytest.raises(lib.BadRow, match="is not a list"):
        lib.parse_list(text)


def test_pairs_and_times():
    assert lib.parse_pair("[1200, 4000]") == (1200, 4000)
    assert lib.parse_pair(" ") is None
    with pytest.raises(lib.BadRow, match="not a pair"):
        lib.parse_pair("1200, 4000")
    assert lib.parse_timestamp("00:01:02.50") == 62.5
    assert lib.parse_timestamp("01:02") == 62
    assert lib.parse_timestamp("137.72") == 137.72
    with pytest.raises(lib.BadRow, match="not a time"):
        lib.parse_timestamp("noon")


def test_fields_suit_every_template():
    fields = lib.segment_fields("-x", 30.0, 40.5)
    names = "{id}_{start:06d}", "{id}_{start:.3f}", "{id}_{start_ms}_{end_ms}"
    assert [name.format_map(fields) for name in names] == [
        "-x_000030",
        "-x_30.000",
        "-x_30000_40500",
    ]


def test_annotations_are_a_folder_or_a_file_in_it(tmp_path):
    (tmp_path / "b.csv").write_text("x")
    found = lib.Annotations(tmp_path / "b.csv")
    assert found.file("a.csv", "b.csv") == tmp_path / "b.csv"
    assert found.find("c.csv") is None
    assert found.digests()["b.csv"].startswith("2d711642b726b044")
    with pytest.raises(UserError, match=r"has no c.csv or d.csv. Get it there"):
        found.file("c.csv", "d.csv", hint="Get it there")
    with pytest.raises(UserError, match="no such folder"):
        lib.Annotations(tmp_path / "none")
