"""What ``apply``, ``edit`` and ``label`` send."""

import pytest

from ctl.errors import CtlError
from ctl.verbs.apply import applied_text, apply_patch
from ctl.verbs.edit import merge_patch
from ctl.verbs.label import check_overwrites, outcome, split_changes


def test_apply_sends_nothing_when_nothing_differs() -> None:
    wanted = {"spec": {"replicas": 3, "template": {"containers": [{"name": "a"}]}}}
    live = {"spec": {"replicas": 3, "template": {"containers": [{"name": "a", "imagePullPolicy": "Always"}]}, "x": 1}}
    assert apply_patch(wanted, wanted, live) == {}


def test_apply_changes_what_differs_and_leaves_other_fields_alone() -> None:
    assert apply_patch({}, {"spec": {"replicas": 5}}, {"spec": {"replicas": 3, "paused": True}}) == {
        "spec": {"replicas": 5}
    }


def test_apply_removes_what_was_applied_before_and_is_gone_from_the_file() -> None:
    last = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    wanted = {"metadata": {"labels": {"a": "1"}}}
    live = {"metadata": {"labels": {"a": "1", "b": "2", "other": "3"}}}
    assert apply_patch(last, wanted, live) == {"metadata": {"labels": {"b": None}}}


def test_apply_replaces_a_list_whose_length_changed() -> None:
    wanted = {"spec": {"ports": [{"port": 80}]}}
    live = {"spec": {"ports": [{"port": 80}, {"port": 81}]}}
    assert apply_patch({}, wanted, live) == wanted


def test_the_applied_text_is_kubectls() -> None:
    wanted = {"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "<&>"}, "metadata": {"name": "x"}}
    assert applied_text(wanted) == (
        '{"apiVersion":"v1","data":{"a":"\\u003c\\u0026\\u003e"},"kind":"ConfigMap",'
        '"metadata":{"annotations":{},"name":"x"}}\n'
    )


def test_edit_sends_only_what_the_user_changed() -> None:
    before = {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1, "list": [1]}}
    after = {"metadata": {"labels": {"a": "9"}}, "spec": {"replicas": 1, "list": [1, 2]}}
    assert merge_patch(before, after) == {"metadata": {"labels": {"a": "9", "b": None}}, "spec": {"list": [1, 2]}}


def test_labels_are_told_from_names_by_their_form() -> None:
    assert split_changes(["pods", "x", "y", "a=b", "c-"]) == (["pods", "x", "y"], {"a": "b", "c": None})


def test_label_without_a_change_is_refused() -> None:
    with pytest.raises(CtlError, match="at least one update is required"):
        split_changes(["pods", "x"])


def test_a_label_that_is_there_is_not_overwritten_silently() -> None:
    check_overwrites({"a": "b"}, {"a": "b", "c": "d"})
    with pytest.raises(CtlError, match=r"'a' already has a value \(b\), and --overwrite is false"):
        check_overwrites({"a": "b"}, {"a": "c"})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"a": "2"}, "labeled"),
        ({"a": "1"}, "not labeled"),
        ({"a": None}, "unlabeled"),
        ({"b": None}, "not labeled"),
        ({"a": None, "b": "2"}, "labeled"),
    ],
)
def test_label_says_what_it_did(changes: dict[str, str | None], word: str) -> None:
    assert outcome("labels", {"a": "1"}, changes) == word
