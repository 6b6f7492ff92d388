"""If-Match and If-None-Match, as clients write them."""

import pytest
from marshmallow import ValidationError

from app.http.etags import IfMatchSchema


@pytest.mark.parametrize(
    ("header", "expected"), [('"a"', {"a"}), ('"a", "b"', {"a", "b"}), ('W/"a" ,"b"', {"a", "b"}), ('""', {""}), ("*", None)]
)
def test_if_match_is_a_list_of_tags_or_a_star(header, expected):
    assert IfMatchSchema().load({"If-Match": header})["if_match"] == expected


@pytest.mark.parametrize("header", ["", "a", '"a', 'a"', '"a" "b"', '"a",', ',"a"', "*,*", 'w/"a"', "W/*", '"a\n"'])
def test_any_other_if_match_is_refused(header):
    with pytest.raises(ValidationError):
        IfMatchSchema().load({"If-Match": header})
