"""The pure pieces of streaming: tokens, resize messages, masks, statuses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.service.streaming import Tokens
from cri_runtime.service.streams import status
from cri_runtime.service.streams.channels import ChannelProtocol, choose
from cri_runtime.service.streams.remote_command import SizeReader
from cri_runtime.service.streams.upgrade import Forward
from cri_runtime.service.streams.websocket import encode_frame, mask


async def _nowhere(port: int) -> Any:
    raise OSError


def test_a_token_expires_after_a_minute() -> None:
    now = [0.0]
    tokens = Tokens(lambda: now[0])
    target = Forward(_nowhere, ())
    old, young = tokens.add("exec", target), ""
    now[0] = 30.0
    young = tokens.add("exec", target)
    now[0] = 60.0
    assert tokens.take("exec", old) is None
    assert tokens.take("exec", young) is target
    assert tokens.take("exec", young) is None


@given(sizes=st.lists(st.tuples(st.integers(1, 65535), st.integers(1, 65535)), max_size=5), cut=st.integers(1, 9))
def test_resize_messages_may_be_cut_and_joined(sizes: list[tuple[int, int]], cut: int) -> None:
    text = " ".join(json.dumps({"Width": w, "Height": h}) for w, h in sizes).encode()
    reader = SizeReader()
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    assert [size for piece in pieces for size in reader.feed(piece)] == sizes


@pytest.mark.parametrize("message", [b'{"Width":0,"Height":0}', b"[]", b"{}", b'{"Width":"a","Height":1}', b"{" * 9999])
def test_what_is_no_size_is_skipped(message: bytes) -> None:
    assert SizeReader().feed(message) == []


@given(data=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4))
def test_masking_is_the_xor_of_rfc_6455(data: bytes, key: bytes) -> None:
    assert mask(data, key) == bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, b"\x82\x7d"), (126, b"\x82\x7e\x00\x7e"), (65536, b"\x82\x7f" + bytes([0] * 5 + [1, 0, 0]))],
)
def test_frame_lengths_have_three_forms(size: int, head: bytes) -> None:
    assert encode_frame(2, bytes(size)) == head + bytes(size)


def test_the_clients_order_of_protocols_counts() -> None:
    assert choose(["x", "v4.channel.k8s.io", "v5.channel.k8s.io"], ["v5.channel.k8s.io", "v4.channel.k8s.io"]) == (
        "v4.channel.k8s.io"
    )
    assert choose(["x"], ["y"]) is None


def test_old_protocols_tell_success_by_silence() -> None:
    assert status.encode(status.exited(0), 1) == b""
    assert b"exit status 4" in status.encode(status.exited(4), 1)
    assert json.loads(status.encode(status.exited(4), 4))["details"]["causes"][0]["message"] == "4"


@pytest.mark.parametrize("message", [b"", b"0***"])
def test_a_text_message_that_is_no_base64_is_skipped(message: bytes) -> None:
    assert ChannelProtocol(4, text=True).decode(message) is None
