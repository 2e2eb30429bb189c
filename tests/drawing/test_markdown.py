"""Tables in Markdown."""

from __future__ import annotations

from lightning_ww.drawing.markdown import markdown


def test_a_sentence_of_several_lines_stays_in_its_cell() -> None:
    assert markdown(["a"], [["one\ntwo | three"]]).splitlines()[-1] == "| one two \\| three |"
