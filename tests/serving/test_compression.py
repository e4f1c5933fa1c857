"""Compressed requests within their bound, and compressed answers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection, HTTPResponse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import Server
from worlds import GOOD, World, logistic

from homeostat.serving.compression import inflate
from homeostat.serving.http import Limits
from homeostat.serving.messages import Refusal, Request

PREDICT = "/v1/models/fraud/predict"


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    world = World()
    world.route(world.bundle(logistic))
    server = Server(world, Limits(max_body=20_000))
    yield server
    server.close()


def post(server: Server, body: bytes, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", PREDICT, body, {name.replace("_", "-"): text for name, text in headers.items()})
    response = connection.getresponse()
    found = response, response.read()
    connection.close()
    return found


BODY = json.dumps({"records": [GOOD]}).encode()


class TestRequests:
    @pytest.mark.parametrize(
        ("coding", "compress"),
        [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate),
         ("identity", bytes)],
    )  # fmt: skip
    def test_are_inflated(self, server: Server, coding: str, compress: Callable[[bytes], bytes]) -> None:
        response, body = post(server, compress(BODY), content_encoding=coding)
        assert (response.status, json.loads(body)["predictions"][0]["score"]) == (200, 0.5)

    @pytest.mark.parametrize(
        ("coding", "body", "status"),
        [
            ("br", BODY, 415),
            ("gzip, gzip", BODY, 415),
            ("gzip", BODY, 400),
            ("gzip", gzip.compress(BODY, mtime=0)[:-9], 400),
            ("gzip", gzip.compress(BODY, mtime=0) + b"more", 400),
            ("gzip", gzip.compress(b" " * 20_000 + BODY, mtime=0), 413),
            ("deflate", zlib.compress(bytes(10_000_000)), 413),
        ],
    )
    def test_are_refused(self, server: Server, coding: str, body: bytes, status: int) -> None:
        response, told = post(server, body, content_encoding=coding)
        assert (response.status, "message" in json.loads(told)["error"]) == (status, True)
        assert (response.headers["accept-encoding"] == "gzip, deflate") == (status == 415)

    @given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]), st.integers(0, 300), st.integers(0, 200))
    def test_whatever_comes_is_inflated_or_refused(self, data: bytes, coding: str, most: int, cut: int) -> None:
        whole = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}[coding](data)
        for body, bound in ((data, most), (whole, most), (whole[:cut], 10**6), (whole + data, 10**6)):
            try:
                inflated = _inflated(body, coding, bound)
            except Refusal as error:
                assert error.status in (400, 413)
            else:
                assert len(inflated) <= bound
        assert _inflated(whole, coding, len(data)) == data


class TestAnswers:
    MANY = json.dumps({"records": [GOOD] * 200}).encode()

    @pytest.mark.parametrize(
        ("accepted", "coding"),
        [("gzip, deflate, br", "gzip"), ("deflate", "deflate"), ("gzip;q=0, *", "deflate"), ("*;q=.5", "gzip"),
         ("br", None), ("identity;q=1, *;q=0", None), ("gzip;q=many", None)],
    )  # fmt: skip
    def test_that_are_long_are_compressed_as_the_client_takes_them(
        self, server: Server, accepted: str, coding: str | None
    ) -> None:
        response, body = post(server, self.MANY, accept_encoding=accepted)
        assert (response.headers["content-encoding"], response.headers["vary"]) == (coding, "accept-encoding")
        opened_body = zlib.decompress(body, 47) if coding else body
        assert len(json.loads(opened_body)["predictions"]) == 200

    def test_that_are_short_are_not(self, server: Server) -> None:
        response, _ = post(server, BODY, accept_encoding="gzip")
        assert response.headers["content-encoding"] is None
        assert response.headers["vary"] is None


def _inflated(body: bytes, coding: str, most: int) -> bytes:
    request = Request("POST", "/", body, {"content-encoding": coding})
    inflate(request, most)
    return request.body
