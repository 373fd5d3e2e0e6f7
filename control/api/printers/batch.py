"""Printers of ``batch/v1``."""

from typing import Any

from control.api.printers.model import Printer
from control.api.printers.parts import NONE, age, containers, images, selector
from control.api.times import human_duration

WORKLOAD = "+CONTAINERS|+IMAGES|+SELECTOR"
STATES = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)
"""Conditions that decide a job's status, strongest first, and the word for each."""


def _job(job: Any, now_s: float) -> list[str]:
    spec = job.spec.template.spec
    return [
        job.metadata.name,
        _job_status(job),
        completions(job),
        _duration(job, now_s),
        age(job.metadata.creationTimestamp, now_s),
        containers(spec),
        images(spec),
        selector(job.spec.selector),
    ]


def _job_status(job: Any) -> str:
    true = {condition.type for condition in job.status.conditions if condition.status == "True"}
    for condition, word in STATES[:2]:
        if condition in true:
            return word
    if job.metadata.HasField("deletionTimestamp"):
        return "Terminating"
    return next((word for condition, word in STATES[2:] if condition in true), "Running")


def completions(job: Any) -> str:
    """``1/3``, or ``0/1 of 4`` when the pods share work without a count."""
    if job.spec.HasField("completions"):
        return f"{job.status.succeeded}/{job.spec.completions}"
    parallelism = job.spec.parallelism if job.spec.HasField("parallelism") else 0
    return f"{job.status.succeeded}/1 of {parallelism}" if parallelism > 1 else f"{job.status.succeeded}/1"


def _duration(job: Any, now_s: float) -> str:
    if not job.status.HasField("startTime"):
        return ""
    end = job.status.completionTime.seconds if job.status.HasField("completionTime") else now_s
    return human_duration(end - job.status.startTime.seconds)


def _cron_job(cron: Any, now_s: float) -> list[str]:
    spec = cron.spec.jobTemplate.spec.template.spec
    return [
        cron.metadata.name,
        cron.spec.schedule,
        cron.spec.timeZone or NONE,
        "True" if cron.spec.suspend else "False",
        str(len(cron.status.active)),
        age(cron.status.lastScheduleTime, now_s) if cron.status.HasField("lastScheduleTime") else NONE,
        age(cron.metadata.creationTimestamp, now_s),
        containers(spec),
        images(spec),
        selector(cron.spec.jobTemplate.spec.selector),
    ]


PRINTERS = {
    "jobs.batch": Printer(f"NAME|STATUS|COMPLETIONS|DURATION|AGE|{WORKLOAD}", _job),
    "cronjobs.batch": Printer(f"NAME|SCHEDULE|TIMEZONE|SUSPEND|ACTIVE|LAST SCHEDULE|AGE|{WORKLOAD}", _cron_job),
}
