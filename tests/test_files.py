from swim.files import append_json_lines, human_bytes, read_json_lines


def test_a_torn_line_harms_no_other(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_json_lines(path, [{"a": 1}, {"b": "\n"}])
    append_json_lines(path, [{"c": 3}])
    assert path.read_text() == '{"a": 1}\n{"b": "\\n"}\n{"c": 3}\n'
    path.write_bytes(path.read_bytes()[:-4])
    append_json_lines(path, [{"d": 4}])
    assert list(read_json_lines(path)) == [{"a": 1}, {"b": "\n"}, {"d": 4}]
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


def test_sizes_are_read_at_a_glance():
    assert [human_bytes(count) for count in (0, 2_340, 56_000_000, 1.5e12)] == [
        "0.0 kB",
        "2.3 kB",
        "56.00 MB",
        "1,500.00 GB",
    ]
