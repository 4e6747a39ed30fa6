"""Plans: bounds, addresses, schedules."""

import itertools

import pytest

from appliance.load_test import BadPlan, LoadPlan, Target, parse_url

TARGET = Target("127.0.0.1", 8080, "/v1/embeddings")


def build_plan(**changes) -> LoadPlan:
    return LoadPlan(**({"target": TARGET, "bodies": (b"{}",), "duration_s": 10.0} | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rps": 20_001}, "rps 20001"),
        ({"rps": 0}, "rps 0"),
        ({"rps": float("nan")}, "rps nan"),
        ({"duration_s": 3601}, "duration 3601"),
        ({"duration_s": -1}, "duration -1"),
        ({"connections": 0}, "connections 0"),
        ({"connections": 1025}, "connections 1025"),
        ({"count": 0}, "count 0"),
        ({"timeout_s": 0}, "timeout 0"),
        ({"outstanding": 0}, "outstanding 0"),
        ({"arrivals": "bursty"}, "bursty"),
        ({"bodies": ()}, "no request bodies"),
        ({"duration_s": None}, "neither duration nor count"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(changes, named):
    """A plan outside its bounds is refused with the value and what is accepted."""
    with pytest.raises(BadPlan, match=named):
        build_plan(**changes)


def test_even_arrivals_are_equally_spaced():
    """An even schedule has rps x duration arrivals, 1/rps apart."""
    times = list(build_plan(rps=50, duration_s=2.0, arrivals="even").arrival_times())
    assert len(times) == 100
    assert {round(later - earlier, 9) for earlier, later in itertools.pairwise(times)} == {0.02}


def test_poisson_arrivals_follow_their_seed_and_rate():
    """The same seed gives the same times; their number lies near rps x duration."""
    times = [list(build_plan(rps=100, duration_s=60.0, seed=seed).arrival_times()) for seed in (1, 1, 2)]
    assert times[0] == times[1] != times[2]
    assert times[0] == sorted(times[0])
    assert 5500 < len(times[0]) < 6500
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[0])]
    assert max(gaps) > 4 * min(0.01, sum(gaps) / len(gaps))


def test_a_count_ends_the_schedule():
    """No more than `count` requests arrive."""
    assert len(list(build_plan(rps=100, count=7).arrival_times())) == 7


def test_a_request_is_whole_http():
    """Head and body in one piece, the length true."""
    target = Target("::1", 8080, "/x", None, (("Authorization", "Bearer k"),))
    head, _, body = target.build_request("{'ü'}".encode()).partition(b"\r\n\r\n")
    assert body == "{'ü'}".encode()
    assert head.split(b"\r\n") == [
        b"POST /x HTTP/1.1",
        b"Host: [::1]:8080",
        b"Content-Type: application/json",
        b"Content-Length: 6",
        b"Authorization: Bearer k",
    ]


def test_addresses_are_taken_apart():
    """Scheme, port, path and query of an address are honoured."""
    assert parse_url("http://localhost:8080/v1/embeddings?a=1") == Target(
        "localhost", 8080, "/v1/embeddings?a=1"
    )
    secure = parse_url("https://[::1]")
    assert (secure.host, secure.port, secure.path) == ("::1", 443, "/")
    assert secure.context is not None
    assert secure.context.check_hostname


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host/", "http://", "http://host:99999/", ""])
def test_bad_addresses_are_refused(url):
    """What is no http address is refused, naming it."""
    with pytest.raises(BadPlan, match="url"):
        parse_url(url)


def test_headers_cannot_smuggle_lines():
    """A line break in a header is refused."""
    with pytest.raises(BadPlan, match="line breaks"):
        parse_url("http://host/", headers=(("X", "a\r\nY: b"),))
