"""What a user may write for kinds and names."""

import pytest

from ctl.errors import CtlError
from ctl.resources import Request, kind_named, named, one_object, parse_requests


def kinds(*words: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(request.kind.plural, request.names) for request in parse_requests(words)]


def test_a_kind_alone_means_all_of_it() -> None:
    assert kinds("po") == kinds("pods") == kinds("pod") == [("pods", ())]


def test_names_follow_the_kind() -> None:
    assert kinds("po", "a", "b") == [("pods", ("a", "b"))]


def test_kinds_may_be_comma_separated() -> None:
    assert kinds("rc,svc") == [("replicationcontrollers", ()), ("services", ())]


def test_pairs_may_name_different_kinds() -> None:
    assert kinds("po/a", "deploy/b") == [("pods", ("a",)), ("deployments", ("b",))]


def test_all_is_every_kind_of_that_category() -> None:
    assert ("pods", ()) in kinds("all") and ("secrets", ()) not in kinds("all")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pds"], 'the server doesn\'t have a resource type "pds"'),
        (["po/a", "b"], "no need to specify a resource type as a separate argument"),
        (["po/"], "not of the form TYPE/NAME"),
        ([], "Required resource not specified"),
    ],
)
def test_a_wrong_word_is_answered_in_kubectls_words(words: list[str], message: str) -> None:
    with pytest.raises(CtlError) as caught:
        parse_requests(words)
    assert message in str(caught.value)


def test_one_object_takes_a_default_kind() -> None:
    kind, name = one_object(["x"], default="pods")
    assert (kind.kind, name) == ("Pod", "x")
    with pytest.raises(CtlError, match="exactly one object"):
        one_object(["pods"])


def test_names_carry_the_group() -> None:
    assert named(kind_named("deploy"), "x") == "deployment.apps/x"
    assert named(kind_named("po"), "x") == "pod/x"
    assert Request(kind_named("po")).names == ()
