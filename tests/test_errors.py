"""Hints for names that are not known, and names as text."""

from restore.errors import RestoreError, did_you_mean


def test_the_nearest_name_is_suggested_and_all_are_listed():
    assert did_you_mean("foto", ["inpaint", "photo"]) == "did you mean 'photo'? known: inpaint, photo"
    assert did_you_mean("foto", ["inpaint", "photo"], list_known=False) == "did you mean 'photo'?"


def test_without_a_near_name_all_are_listed():
    assert did_you_mean("x", ["inpaint", "photo"], list_known=False) == "known: inpaint, photo"


def test_a_name_that_no_utf8_can_hold_is_escaped():
    assert RestoreError("x", where="caf\udce9\n").where == "caf\\xe9\\n"
    assert RestoreError("x", where="\ud800").where == "\\ud800"
