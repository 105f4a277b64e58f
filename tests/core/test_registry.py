"""Techniques register themselves, once, and are found by name."""

import pytest

from kinema.core.errors import KinemaError
from kinema.core.registry import find, technique, techniques
from kinema.core.technique import Technique


def test_every_technique_is_listed_under_its_topic():
    entries = techniques()
    assert list(entries) == sorted(entries) and entries["cfg"].topic == "guidance"
    assert all(entry.cls.name == name for name, entry in entries.items())


def test_a_name_is_given_once():
    class Other(Technique):
        pass

    with pytest.raises(KinemaError, match="'cfg' is there already, in kinema.guidance.cfg; give .* another name"):
        technique("cfg", paper="arXiv:0000.00000", base="none", neutral={})(Other)
    assert find("cfg").cls.__name__ == "CFG"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(KinemaError, match="did you mean 'cfg'"):
        find("cgf")
