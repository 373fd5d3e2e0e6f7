"""The consensus core: pure, synchronous, deterministic. It reads no clock, no disk, no network and no dice."""
