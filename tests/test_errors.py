"""Hints for names that are not known."""

from restore.errors import did_you_mean


def test_the_nearest_name_is_suggested_and_all_are_listed():
    assert did_you_mean("foto", ["inpaint", "photo"]) == "did you mean 'photo'? known: inpaint, photo"
    assert did_you_mean("foto", ["inpaint", "photo"], list_known=False) == "did you mean 'photo'?"


def test_without_a_near_name_all_are_listed():
    assert did_you_mean("x", ["inpaint", "photo"], list_known=False) == "known: inpaint, photo"
