"""Traces from files: each accepted form, and each error with its place."""

import pytest

from appliance.simulate.traces import BadTrace, ServiceTime, read_traffic


def read(tmp_path, text, service=None, row=None):
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_traffic(path, service or ServiceTime(), row)


def test_seconds_and_service(tmp_path):
    """One arrival per row, in any order."""
    traffic = read(tmp_path, "t_s,service_s\n3.5,0.2\n1,0.1\n")
    assert (list(traffic.arrivals), list(traffic.services)) == ([1.0, 3.5], [0.1, 0.2])
    assert traffic.duration_s == 3.5


@pytest.mark.parametrize(
    "times",
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:05.9799600"),
        ("2023-11-16T18:17:03Z", "2023-11-16T19:17:05+01:00"),
        ("1700000000.5", "1700000002.5"),
    ],
    ids=["seven digits", "zones", "unix"],
)
def test_timestamps_count_from_the_first(tmp_path, times):
    """Whatever the form, two seconds are two seconds."""
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n{},1000,10\n{},0,0\n".format(*times)
    traffic = read(tmp_path, text)
    assert traffic.arrivals == pytest.approx([0.0, 2.0])
    assert traffic.services == pytest.approx([0.05 + 0.4 + 0.04, 0.05])


def test_counts_per_minute_add_up_and_stay_the_same(tmp_path):
    """Rows together make the traffic; twice read it is the same; one row can be chosen."""
    text = "HashFunction,minute_1,minute_2\na,2,0\nb,1,3\n"
    traffic = read(tmp_path, text, ServiceTime(0.7))
    assert len(traffic.arrivals) == 6
    assert sum(at < 60 for at in traffic.arrivals) == 3
    assert set(traffic.services) == {0.7}
    assert traffic.duration_s == 120
    assert read(tmp_path, text, ServiceTime(0.7)) == traffic
    assert len(read(tmp_path, text, row=1).arrivals) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t_s\n1\nx\n", "line 3: t_s 'x': seconds from 0 on is accepted"),
        ("t_s\n-1\n", "line 2: t_s '-1': seconds from 0 on"),
        ("t_s\nnan\n", "line 2: t_s 'nan'"),
        ("t_s,service_s\n1,0\n", "line 2: service_s '0': seconds above 0"),
        ("t_s,service_s\n1\n", "line 2: service_s nothing: seconds above 0"),
        ("t_s\n1,2\n", "line 2: row 'more values than columns'"),
        ("TIMESTAMP\nyesterday\n", "line 2: TIMESTAMP 'yesterday': a time such as"),
        ("TIMESTAMP,ContextTokens\n1,-5\n", "line 2: ContextTokens '-5'"),
        ("minute_1,minute_3\n1,1\n", "line 1: column 'minute_3': minute_2 is accepted"),
        ("minute_1\n1.5\n", "line 2: minute_1 '1.5': a whole number"),
        ("minute_1\n9999999\n", "line 2: minute_1 '9999999'"),
        ("minute_1\n0\n", "holds no request"),
        ("a,b\n1,2\n", "line 1: columns a, b: one of t_s"),
        ("", "line 1: columns none"),
        ("t_s\n1700000000\n", "31 days"),
        (b"t_s\n\xff\xfe\n", "not UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else repr(value)[:30],
)
def test_errors_say_where_what_and_what_is_accepted(tmp_path, text, said):
    """One line for people: the file, the line, the value, what is accepted."""
    with pytest.raises(BadTrace) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "trace.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_chosen_of_counts_alone(tmp_path):
    """A row that is not there, or of arrivals, is refused."""
    with pytest.raises(BadTrace, match="has no row 3"):
        read(tmp_path, "minute_1\n1\n", row=3)
    with pytest.raises(BadTrace, match="one arrival per row"):
        read(tmp_path, "t_s\n1\n", row=1)
