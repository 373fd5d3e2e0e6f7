"""Users of images that say little: no user, no /etc/passwd, damaged rows."""

import pytest

from cri_runtime.pod.errors import InvalidConfig
from cri_runtime.pod.users import User, Wanted, resolve

ROOT = User(0, 0, (0,), "/")


@pytest.mark.parametrize("passwd", ["", "\n", "nobody", "other:x:7:7::/home/other:/bin/sh\n"])
def test_no_user_is_root_even_when_passwd_does_not_have_it(passwd: str) -> None:
    assert resolve(Wanted(), passwd, "") == ROOT


def test_no_user_with_a_group_is_root_of_that_group() -> None:
    assert resolve(Wanted(group="5", groups=(9,)), "", "") == User(0, 5, (5, 9), "/")


def test_a_row_whose_group_is_no_number_does_not_count() -> None:
    assert resolve(Wanted(), "root:x:0:wheel:root:/root:/bin/sh\n", "") == ROOT
    with pytest.raises(InvalidConfig, match='no user "app"'):
        resolve(Wanted("app"), "app:x:7:::/app:/bin/sh\n", "")
