"""JSONPath as kubectl speaks it (kubernetes.io/docs/reference/kubectl/jsonpath)."""

import pytest

from ctl.jsonpath import JSONPathError, find, render

DOCUMENT = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]},
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {"capacity": {"cpu": "8"}, "ready": True, "addresses": [{"type": "another", "address": "x"}]},
        },
    ],
    "users": [
        {"name": "myself", "user": {}},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}, "age": 3},
    ],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}{.items[0].kind}", "ListNone"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.users[-1:].name}", "e2e"),
        ("{.users[0:2].name}", "myself e2e"),
        ("{.users[0,1].name}", "myself e2e"),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.age)].name}", "e2e"),
        ("{.users[?(@.age>2)].name}", "e2e"),
        ("{.items[?(@.status.ready==true)].metadata.name}", "127.0.0.2"),
        ('{.users[?(@.name=="e2e" && @.age==3)].name}', "e2e"),
        ('{.users[?(@.name=="x" || @.age==3)].name}', "e2e"),
        ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
        ("{.items[0].metadata.labels['kubernetes.io/hostname']}", "127.0.0.1"),
        ("{.items[0]['kind','metadata']['name']}", "127.0.0.1"),
        ("{.items[*]['metadata.name', 'status.capacity']}", None),
        (
            '{range .items[*]}{.metadata.name}{"\\t"}{.status.capacity.cpu}{"\\n"}{end}',
            "127.0.0.1\t4\n127.0.0.2\t8\n",
        ),
        ("{range .items[*]}[{range .status.addresses[*]}{.address}{end}]{end}", "[127.0.0.1][x]"),
        ("{.items[0].status.capacity}", '{"cpu":"4"}'),
        ("{.items[1].status.ready}", "true"),
        ('{"{"}{.kind}{"}"}', "{List}"),
        ("{range .items[*]}{$.kind} {end}", "List List "),
        ("plain", "plain"),
    ],
)
def test_template_renders_as_kubectl_renders_it(template: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(JSONPathError):
            render(template, DOCUMENT)
    else:
        assert render(template, DOCUMENT) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{.missing}", "missing is not found"),
        ("{.users[7].name}", "array index out of bounds: index 7, length 2"),
        ("{.kind[0]}", "is not an array or slice"),
        ("{range .items[*]}x", "{range} without {end}"),
        ("{end}", "{end} without {range}"),
        ("{.items[0}", "unclosed"),
        ('{"open}', "unterminated string"),
        ("{.items[?@.x]}", "[?(...)]"),
        ("{.items[x]}", "invalid array index"),
    ],
)
def test_wrong_template_says_what_is_wrong(template: str, message: str) -> None:
    with pytest.raises(JSONPathError) as caught:
        render(template, DOCUMENT)
    assert message in str(caught.value)


@pytest.mark.parametrize("expression", [".users[0].name", "{.users[0].name}", "users[0].name"])
def test_an_expression_needs_neither_braces_nor_leading_dot(expression: str) -> None:
    assert find(expression, DOCUMENT) == ["myself"]
