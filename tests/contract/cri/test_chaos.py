"""SIGKILL at random instants, under load: afterwards the truth is told, and nothing is left too much."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("KNARR_CHAOS_ROUNDS", "6"))
EXPECTED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.FAILED_PRECONDITION)
COMMANDS = ("sleep 1000", "exit 3", "echo hi; sleep 0.1")


class Load(threading.Thread):
    """Makes pods, and removes most of them, until told to stop. What went wrong beyond the daemon's death is kept."""

    def __init__(self, runtime: Any, seed: int) -> None:
        super().__init__()
        self.runtime, self.random = runtime, random.Random(seed)
        self.over = threading.Event()
        self.surprises: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._one_pod()
            except grpc.RpcError as err:
                # UNKNOWN is a start that failed: here because a supervisor was killed.
                if err.code() not in (*EXPECTED, grpc.StatusCode.UNKNOWN):
                    self.surprises.append(f"{err.code()}: {err.details()}")
                self.over.wait(0.02)
            except ValueError:  # the channel was closed
                return

    def _one_pod(self) -> None:
        mode = self.random.choice((cri.POD, cri.CONTAINER))
        config = self.runtime.sandbox_config()
        config.linux.security_context.namespace_options.pid = mode
        sandbox = self.runtime.run_sandbox(config)

        def change(container: cri.ContainerConfig) -> None:
            container.linux.security_context.namespace_options.pid = mode

        container = self.runtime.run(sandbox, "sh", "-c", self.random.choice(COMMANDS), change=change)
        if self.random.random() < 0.5:
            self.runtime.exec(container, "true")
        if self.random.random() < 0.7:
            self.runtime.remove(sandbox[0])


def supervisors(runtime: Any) -> list[int]:
    found = []
    for pid in runtime.pids():
        try:
            if Path(f"/proc/{pid}/comm").read_text().startswith("pod:"):
                found.append(pid)
        except OSError:
            continue
    return found


def ghosts(runtime: Any) -> list[str]:
    """Containers that are told to run although their process is gone."""
    found = []
    wanted = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
    for container in runtime.cri.ListContainers(cri.ListContainersRequest(filter=wanted)).containers:
        request = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
        pid = json.loads(runtime.cri.ContainerStatus(request).info["info"])["pid"]
        if pid and not Path(f"/proc/{pid}").exists():
            found.append(container.id)
    return found


def test_kill_at_random_instants(mortal: Any) -> None:
    seed = int(os.environ.get("KNARR_CHAOS_SEED", str(random.randrange(10**6))))
    print(f"KNARR_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    for number in range(ROUNDS):
        loads = [Load(mortal, seed + 10 * number + index) for index in range(3)]
        for load in loads:
            load.start()
        time.sleep(dice.uniform(0.02, 0.8))  # the instant is the point of the test
        victim = dice.choice(("daemon", "daemon", "supervisor", "both"))
        if victim != "daemon" and (alive := supervisors(mortal)):
            os.kill(dice.choice(alive), signal.SIGKILL)
        if victim != "supervisor":
            mortal.kill()
        for load in loads:
            load.over.set()
        for load in loads:
            load.join()
            assert load.surprises == []
        if victim != "supervisor":
            mortal.start()
        mortal.wait_for(lambda: not ghosts(mortal), "the truth about containers")
        mortal.remove_all()
        mortal.assert_clean()
