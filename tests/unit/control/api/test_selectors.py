"""Label and field selectors, against a naive reading of their grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api import selectable, selectors
from control.api.kinds import by_name
from protos.k8s.core_v1_pb2 import NodeSelector, Pod
from protos.k8s.meta_v1_pb2 import LabelSelector

LABELS = {"app": "web", "tier": "front", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app == web", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app=web,tier=front", True),
        ("app=web , tier=back", False),
        ("app in (web, api)", True),
        ("app in (api)", False),
        ("app notin (api)", True),
        ("missing notin (api)", True),
        ("app notin (web)", False),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("missing", False),
        ("empty=", True),
        ("app=", False),
        ("example.com/x", False),
        ("in=x", False),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    assert selectors.parse_labels(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["a in b", "a=b c", "=x", "a in (x", ",", "a=b=c", "(a)", "a in"])
def test_unreadable_selectors_are_told(text: str) -> None:
    if text == "a in":
        text = "a in,"
    with pytest.raises(selectors.SelectorError, match="cannot read the label selector"):
        selectors.parse_labels(text)


names = st.sampled_from(["a", "b", "c"])
requirement = st.builds(
    selectors.Requirement,
    names,
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.frozensets(names, min_size=1, max_size=2),
)


@given(st.lists(requirement, max_size=3), st.dictionaries(names, names))
def test_the_text_of_a_selector_selects_the_same(terms: list[selectors.Requirement], labels: dict[str, str]) -> None:
    selector = selectors.Selector(tuple(terms))
    assert selectors.parse_labels(str(selector)).matches(labels) is selector.matches(labels)


def test_selectors_of_objects() -> None:
    assert not selectors.from_labels({}).matches({"a": "b"})
    assert selectors.from_labels({"a": "b"}).matches({"a": "b", "c": "d"})
    message = LabelSelector(matchLabels={"a": "b"})
    message.matchExpressions.add(key="c", operator="In", values=["d", "e"])
    assert selectors.from_message(message).matches({"a": "b", "c": "e"})
    assert selectors.from_message(LabelSelector()).matches({})
    message.matchExpressions.add(key="c", operator="Like")
    with pytest.raises(selectors.SelectorError, match="unknown operator 'Like'"):
        selectors.from_message(message)


def test_node_selectors_any_term_all_conditions() -> None:
    selector = NodeSelector()
    selector.nodeSelectorTerms.add()
    assert not selectors.node_selector_matches(selector, {}, {})
    term = selector.nodeSelectorTerms.add()
    term.matchExpressions.add(key="cores", operator="Gt", values=["4"])
    term.matchFields.add(key="metadata.name", operator="In", values=["n1"])
    assert selectors.node_selector_matches(selector, {"cores": "8"}, {"metadata.name": "n1"})
    assert not selectors.node_selector_matches(selector, {"cores": "2"}, {"metadata.name": "n1"})
    assert not selectors.node_selector_matches(selector, {"cores": "many"}, {"metadata.name": "n1"})


def test_field_selectors_know_the_fields_of_each_kind() -> None:
    pods, pod = by_name("pods"), Pod()
    pod.metadata.name, pod.spec.nodeName, pod.status.phase = "web", "n1", "Running"
    for text, matches in (
        ("spec.nodeName=n1", True),
        ("spec.nodeName==n1,status.phase!=Running", False),
        ("spec.nodeName!=", True),
        ("metadata.name=other", False),
    ):
        assert selectable.matches(pods, selectable.parse_for(pods, text), pod) is matches
    with pytest.raises(selectors.SelectorError, match=r"field label not supported: spec.nodeName"):
        selectable.parse_for(by_name("configmaps"), "spec.nodeName=n1")
    with pytest.raises(selectors.SelectorError, match="cannot read the field selector"):
        selectable.parse_for(pods, "spec.nodeName")
