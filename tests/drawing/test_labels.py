"""Short names of layers, no two alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ww.drawing.labels import MAX_LABEL, labels, shortened


def test_long_names_keep_their_numbers_and_their_end() -> None:
    assert shortened("encoder.0") == "encoder.0"
    long = shortened("transformer.blocks.12.attention.q_projection")
    assert len(long) <= MAX_LABEL
    assert ".12." in long
    assert long.endswith(".q_projection")
    assert len(shortened("x" * 80)) <= MAX_LABEL


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("encoder.layer.0.attention.self.query.lora_B.default", "e.l.0.a.s.q.lora_B.default"),
        ("transformer.blocks.12.attention.q_projection", "tr.bl.12.at.q_projection"),
        ("vision.encoder.layers.3.mlp.fc1", "vision.en.layers.3.mlp.fc1"),
        ("decoder.up_blocks.2.resnets.1.conv2", "de.u_b.2.resnets.1.conv2"),
    ],
)
def test_the_middle_is_abbreviated_and_the_end_stays(name: str, short: str) -> None:
    assert shortened(name) == short


ADAPTER = [
    f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{side}.default" for i in (1, 10, 11) for side in "AB"
]


TRANSLATOR = [
    f"base_model.model.model.{part}.layers.{i}.{attention}.q_proj.lora_A.default"
    for part in ("encoder", "decoder")
    for i in (1, 10)
    for attention in ("self_attn", "encoder_attn")
]


DIFFUSER = [f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn{k}.to_out.0" for i in (0, 1) for k in (1, 2)]


@pytest.mark.parametrize(
    "names", [ADAPTER, TRANSLATOR, DIFFUSER, ["x" * 40 + c + "x" * 40 for c in "abc"], ["a", "a.b"]]
)
def test_no_two_layers_have_one_label_and_none_is_too_long(names: list[str]) -> None:
    short = labels(names)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= MAX_LABEL
    for name, label in zip(names, short, strict=True):  # what all names begin with holds no numbers here
        assert re.findall(r"(?<=\.)\d+(?=\.)", f".{label}.") == re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")


@given(
    st.lists(
        st.lists(
            st.sampled_from(["a", "attention", "self_attn", "block", "1", "10", "x#1", "lora_A"]),
            min_size=1,
            max_size=12,
        ),
        min_size=1,
        max_size=30,
        unique_by=tuple,
    )
)
def test_no_names_at_all_share_a_label(parts: list[list[str]]) -> None:
    short = labels([".".join(one) for one in parts])
    assert len(set(short)) == len(parts)
    assert max(map(len, short)) <= MAX_LABEL


def test_a_number_is_not_given_twice() -> None:
    names = ["ab" + "c" * 30, "ab" + "d" * 30, "ab#1", "ab" + "c" * 30 + "d"]
    assert len(set(labels(names))) == 4


def test_short_names_stay_as_they_are() -> None:
    assert labels(["encoder.0", "encoder.1"]) == ["encoder.0", "encoder.1"]
