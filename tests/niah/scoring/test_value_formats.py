"""Values are found in whatever form, and compared in one."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.scoring.answer_values import Case
from niah.scoring.outcomes import judge
from niah.scoring.value_formats import find_values, folded, is_cut
from tests.niah.scoring.right_answers import written_otherwise

days = st.dates(datetime.date(1000, 1, 1))


@given(days)
def test_a_date_is_one_however_it_is_written(day: datetime.date) -> None:
    iso = day.isoformat()
    for written in written_otherwise("date", iso).values():
        assert [value.said for value in find_values(f"on {written}.", "date")] == [iso], written
        assert judge(Case(f"It was {written}", (iso,), "date")) == "exact"


@given(days, days)
def test_two_days_are_two_dates(day: datetime.date, other: datetime.date) -> None:
    for written in written_otherwise("date", other.isoformat()).values():
        same = judge(Case(written, (day.isoformat(),), "date")) == "exact"
        assert same == (day == other)


@pytest.mark.parametrize("written", ["03/12/2021", "12/03/2021"])
def test_a_date_that_may_be_two_days_is_none(written: str) -> None:
    assert judge(Case(written, ("2021-03-12",), "date")) == "malformed"


def test_a_day_that_does_not_exist_is_no_day() -> None:
    assert folded("2021-02-30", "date") == "2021-02-30"
    assert judge(Case("February 30, 2021", ("2021-03-02",), "date")) == "invented"


@pytest.mark.parametrize("written", ["13/03/2021", "03/13/2021", "13.3.2021"])
def test_slashes_where_only_one_number_can_be_a_month(written: str) -> None:
    assert folded(written, "date") == "2021-03-13"


UUID = "6f1c2d3e-4b5a-4978-8c6d-0e1f2a3b4c5d"


@given(st.integers(1, len(UUID) - 1))
def test_a_uuid_that_the_limit_cut_is_truncated(end: int) -> None:
    assert judge(Case(f" {UUID[:end]}", (UUID,), "uuid", cut_short=True)) == "truncated"
    assert judge(Case(f" {UUID[:end]}", (UUID,), "uuid")) != "truncated"
    assert judge(Case(f" {UUID}", (UUID,), "uuid", cut_short=True)) == "exact"


@given(st.integers(1, 9))
def test_a_date_that_the_limit_cut_is_truncated(end: int) -> None:
    day = "2021-03-12"
    assert judge(Case(f" {day[:end]}", (day,), "date", cut_short=True)) == "truncated"
    assert judge(Case(f" {day[:end]}", (day,), "date")) != "truncated"
    assert judge(Case(f" {day}", (day,), "date", cut_short=True)) == "exact"


@pytest.mark.parametrize("cut", ["12 Mar", "March 12", "12 March 20", "March", "2021-0", "12"])
def test_the_beginning_of_a_date_in_words_is_cut(cut: str) -> None:
    assert is_cut(f"The date is {cut}", "date")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("v2.13.4", ["2.13.4"]),
        ("Version 2.13.4.", ["2.13.4"]),
        ("3.11.0rc1", ["3.11.0rc1"]),
        ("in 12 steps", []),
    ],
)
def test_versions(text: str, found: list[str]) -> None:
    assert [value.said for value in find_values(text, "version")] == found
