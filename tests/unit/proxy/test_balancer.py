"""The balancer's four rules, and that its books always balance."""

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy import balancer as module
from proxy.balancer import SUSPECT_S, Backend, Balancer, Policy

POD_A, POD_B, POD_C = (Backend(f"10.244.0.{number}", 8080) for number in (2, 3, 4))


class Clock:
    """Time that stands still until told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make(*backends, policy=Policy.ROUND_ROBIN, affinity_s=0, seed=1):
    clock = Clock()
    balancer = Balancer(clock, Random(seed), policy, affinity_s)
    balancer.update(backends)
    return balancer, clock


def picks(balancer, count, client="10.0.0.1"):
    return [balancer.pick(client).backend for _ in range(count)]


def test_round_robin_takes_each_in_turn():
    balancer, _ = make(POD_A, POD_B, POD_C)
    chosen = picks(balancer, 9)
    assert chosen == chosen[:3] * 3 and set(chosen) == {POD_A, POD_B, POD_C}


def test_round_robin_begins_anywhere():
    assert {picks(make(POD_A, POD_B, POD_C, seed=seed)[0], 1)[0] for seed in range(20)} == {POD_A, POD_B, POD_C}


def test_random_reaches_all():
    balancer, _ = make(POD_A, POD_B, POD_C, policy=Policy.RANDOM)
    assert set(picks(balancer, 50)) == {POD_A, POD_B, POD_C}


def test_least_connections_fills_up_the_emptier_of_two():
    balancer, _ = make(POD_A, POD_B, policy=Policy.LEAST_CONNECTIONS)
    slots = [balancer.pick("c") for _ in range(10)]
    assert sorted(slot.open for slot in balancer.slots()) == [5, 5]
    for slot in slots:
        if slot.backend == POD_A:
            balancer.closed(slot)
    assert picks(balancer, 5) == [POD_A] * 5


@pytest.mark.parametrize("policy", Policy)
def test_no_backends_no_choice(policy):
    balancer, _ = make(policy=policy)
    assert balancer.pick("c") is None


@pytest.mark.parametrize("policy", Policy)
def test_retry_takes_each_backend_once_and_then_gives_up(policy):
    balancer, _ = make(POD_A, POD_B, POD_C, policy=policy)
    tried = []
    while (slot := balancer.pick("c", tried)) is not None:
        balancer.failed(slot)
        tried.append(slot)
    assert {slot.backend for slot in tried} == {POD_A, POD_B, POD_C} and len(tried) == 3


@pytest.mark.parametrize("policy", Policy)
def test_backend_that_refused_is_avoided_for_a_moment(policy):
    balancer, clock = make(POD_A, POD_B, policy=policy)
    slot = balancer.pick("c")
    balancer.failed(slot)
    assert slot.backend not in picks(balancer, 20)
    clock.now += SUSPECT_S
    assert slot.backend in picks(balancer, 20)


@pytest.mark.parametrize("policy", Policy)
def test_when_all_refused_they_are_tried_all_the_same(policy):
    balancer, _ = make(POD_A, POD_B, policy=policy)
    for _ in range(4):
        balancer.failed(balancer.pick("c"))
    assert balancer.pick("c") is not None


def test_removed_backend_drains():
    balancer, _ = make(POD_A)
    slot = balancer.pick("c")
    balancer.update([POD_B])
    assert slot.draining and set(picks(balancer, 5)) == {POD_B}
    assert slot in balancer.slots()
    balancer.closed(slot)
    assert slot not in balancer.slots()


def test_backend_that_comes_back_keeps_its_count():
    balancer, _ = make(POD_A)
    slot = balancer.pick("c")
    balancer.update([])
    assert balancer.pick("c") is None
    balancer.update([POD_A])
    assert balancer.pick("c") is slot and slot.open == 2


def test_affinity_returns_a_client_to_its_backend_until_it_was_silent_too_long():
    balancer, clock = make(POD_A, POD_B, POD_C, affinity_s=100)
    first = balancer.pick("c")
    for _ in range(5):
        clock.now += 90
        assert balancer.pick("c") is first
    clock.now += 101
    assert balancer.pick("c") is not first  # in turn: the next one


def test_affinity_gives_way_to_draining_and_to_failure():
    balancer, _ = make(POD_A, POD_B, affinity_s=100)
    first = balancer.pick("c")
    balancer.failed(first)
    second = balancer.pick("c", [first])
    assert second is not first and balancer.pick("c") is second
    balancer.update([first.backend])
    assert balancer.pick("c") is first


def test_affinity_table_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "AFFINITY_CLIENTS_MAX", 10)
    balancer, _ = make(POD_A, POD_B, affinity_s=100)
    for number in range(1000):
        balancer.pick(f"client{number}")
    assert len(balancer._clients) == 10 and "client999" in balancer._clients


class Books(RuleBasedStateMachine):
    """Whatever is opened, closed, failed and replaced: counts agree with a naive model, and rules hold."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.balancer = Balancer(self.clock, Random(3))
        self.wanted = []
        self.open = []

    @rule(policy=st.sampled_from(list(Policy)), affinity_s=st.sampled_from([0, 10]))
    def configure(self, policy, affinity_s):
        self.balancer.policy, self.balancer.affinity_s = policy, affinity_s

    @rule(numbers=st.sets(st.integers(1, 5)))
    def replace(self, numbers):
        self.wanted = [Backend("10.244.0.1", number) for number in sorted(numbers)]
        self.balancer.update(self.wanted)

    @rule(client=st.sampled_from("abc"))
    def pick(self, client):
        slot = self.balancer.pick(client)
        assert (slot is None) == (not self.wanted)
        if slot is not None:
            assert slot.backend in self.wanted and not slot.draining
            self.open.append(slot)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data, fails):
        slot = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        (self.balancer.failed if fails else self.balancer.closed)(slot)

    @rule(seconds=st.sampled_from([0.5, 5, 50]))
    def wait(self, seconds):
        self.clock.now += seconds

    @invariant()
    def books_balance(self):
        slots = self.balancer.slots()
        assert sum(slot.open for slot in slots) == len(self.open)
        assert all(slot.open == self.open.count(slot) for slot in slots)
        assert {slot.backend for slot in slots if not slot.draining} == set(self.wanted)
        assert all(slot.open for slot in slots if slot.draining)


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
