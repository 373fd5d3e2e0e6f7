"""What a pod network reads and changes on the node itself: its uplink, and packet forwarding."""

from pathlib import Path

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
WITNESS = "turned-on-ip-forward"
"""A file in the state directory: forwarding was off before us."""


def uplink() -> str | None:
    """The device that the node's default route leaves by. Its MTU is what pods may send."""
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        device, destination, *_ = line.split()
        if destination == "00000000":
            return device
    return None


def forward_packets(bridge: str, state_dir: Path) -> None:
    """Let the node route between the bridge and its other devices, and let its own localhost reach host ports."""
    if FORWARDING.read_text().strip() == "0":
        state_dir.mkdir(parents=True, exist_ok=True)
        (state_dir / WITNESS).touch()  # before the change: a crash between them costs nothing
        FORWARDING.write_text("1")
    # Harmless only together with the table's guard chain, which keeps pods away from 127.0.0.0/8.
    Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").write_text("1")


def stop_forwarding(state_dir: Path) -> None:
    """Put forwarding back, if it was ours."""
    witness = state_dir / WITNESS
    if witness.exists():
        FORWARDING.write_text("0")
        witness.unlink()
