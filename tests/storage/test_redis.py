"""The URLs that say where Redis is."""

import pytest

from storage.redis.addresses import Place, locate


@pytest.mark.parametrize("url", ["redis://:secret@redis:6379/0", "rediss://redis", "unix:///run/redis.sock?db=2"])
def test_one_server_is_left_to_its_client(url: str) -> None:
    assert locate(url) is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (
            "redis+sentinel://a:1,b,[::1]:3/souk",
            Place([("a", 1), ("b", 26379), ("::1", 3)], "souk", {"db": 0}, {}),
        ),
        (
            "redis+sentinel://:p%40ss@a:1/souk?db=4&sentinel_password=s%2Fs",
            Place([("a", 1)], "souk", {"password": "p@ss", "db": 4}, {"password": "s/s"}),
        ),
        (
            "rediss+cluster://souk:secret@a:1,b:2",
            Place([("a", 1), ("b", 2)], "", {"username": "souk", "password": "secret", "ssl": True}, {"ssl": True}),
        ),
        ("redis+cluster://a/", Place([("a", 6379)], "", {}, {})),
    ],
)
def test_nodes_names_and_passwords_are_read(url: str, place: Place) -> None:
    assert locate(url) == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://redis", "must be a redis://"),
        ("redis+sentinel://", "must be a redis://"),
        ("redis+sentinel://a:1,b:2", "master's name"),
        ("redis+sentinel://a:1,,b:2/souk", "host:port"),
        ("redis+cluster://a:x", "host:port"),
        ("redis+cluster://a:99999", "host:port"),
        ("redis+cluster://a:1/2", "no numbered databases"),
        ("redis+sentinel://a/souk?db=x", "number for db"),
        ("redis+cluster://a?retries=4", "retries"),
    ],
)
def test_what_is_wrong_is_said(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        locate(url)
