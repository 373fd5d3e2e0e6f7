"""Control groups, v2 and v1, behind one interface: :class:`cri_runtime.cgroups.base.Cgroups`."""

from cri_runtime.cgroups.base import Cgroups, Usage
from cri_runtime.cgroups.detect import detect
from cri_runtime.cgroups.limits import DeviceRule, Limits

__all__ = ["Cgroups", "DeviceRule", "Limits", "Usage", "detect"]
