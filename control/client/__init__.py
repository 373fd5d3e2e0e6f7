"""What every component uses to talk to the apiserver: a typed client, informers, work queues, leader election."""

from control.api import errors
from control.client.client import Client, Page, WatchEvent
from control.client.election import LeaderElector
from control.client.informer import Informer
from control.client.workqueue import WorkQueue

__all__ = ["Client", "Informer", "LeaderElector", "Page", "WatchEvent", "WorkQueue", "errors"]
