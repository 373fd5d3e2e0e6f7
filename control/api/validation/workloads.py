"""What makes pods: controllers of every kind, by selector and template."""

from typing import Any

from control.api import selectors
from control.api.validation.faults import Faults
from control.api.validation.objectmeta import validate_labels, validate_selector
from control.api.validation.pod import validate_template
from protos.k8s import batch_v1_pb2 as batch
from protos.k8s import core_v1_pb2 as core


def validate_pod_template_object(obj: core.PodTemplate, faults: Faults) -> None:
    """A stored template."""
    validate_template(obj.template, "template", faults)


def validate_replication_controller(rc: core.ReplicationController, faults: Faults) -> None:
    """Replicas, a selector, and a template that the selector selects."""
    faults.at_least("spec.replicas", rc.spec.replicas, 0)
    faults.at_least("spec.minReadySeconds", rc.spec.minReadySeconds, 0)
    if not rc.spec.selector:
        faults.required("spec.selector")
    validate_labels(rc.spec.selector, "spec.selector", faults)
    if not rc.spec.HasField("template"):
        faults.required("spec.template")
        return
    _validate_always_restarting(rc.spec.template, faults)
    if rc.spec.selector and not selectors.from_labels(rc.spec.selector).matches(rc.spec.template.metadata.labels):
        _labels_do_not_match(rc.spec.template, faults)


def validate_selector_workload(obj: Any, faults: Faults) -> None:
    """ReplicaSet, Deployment, DaemonSet, StatefulSet: a selector message and a template that it selects."""
    if "replicas" in obj.spec.DESCRIPTOR.fields_by_name:
        faults.at_least("spec.replicas", obj.spec.replicas, 0)
    if not obj.spec.HasField("selector"):
        faults.required("spec.selector")
    validate_selector(obj.spec.selector, "spec.selector", faults)
    if not obj.spec.selector.matchLabels and not obj.spec.selector.matchExpressions:
        faults.invalid("spec.selector", "", "empty selector is invalid for a workload")
    _validate_always_restarting(obj.spec.template, faults)
    try:
        matches = selectors.from_message(obj.spec.selector).matches(obj.spec.template.metadata.labels)
    except selectors.SelectorError:
        return
    if not matches:
        _labels_do_not_match(obj.spec.template, faults)


def _validate_always_restarting(template: core.PodTemplateSpec, faults: Faults) -> None:
    validate_template(template, "spec.template", faults)
    if template.spec.restartPolicy != "Always":
        faults.not_supported("spec.template.spec.restartPolicy", template.spec.restartPolicy, ["Always"])


def _labels_do_not_match(template: core.PodTemplateSpec, faults: Faults) -> None:
    labels = dict(sorted(template.metadata.labels.items()))
    faults.invalid("spec.template.metadata.labels", str(labels), "`selector` does not match template `labels`")


def validate_job(job: batch.Job, faults: Faults) -> None:
    """Counts and a template that ends."""
    _validate_job_spec(job.spec, "spec", faults)


def _validate_job_spec(spec: batch.JobSpec, path: str, faults: Faults) -> None:
    for name in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if spec.HasField(name):
            faults.at_least(f"{path}.{name}", getattr(spec, name), 0)
    validate_template(spec.template, f"{path}.template", faults)
    if spec.template.spec.restartPolicy not in ("OnFailure", "Never"):
        faults.not_supported(
            f"{path}.template.spec.restartPolicy", spec.template.spec.restartPolicy, ["OnFailure", "Never"]
        )


def validate_cron_job(job: batch.CronJob, faults: Faults) -> None:
    """A schedule, a concurrency policy and a job."""
    if not job.spec.schedule:
        faults.required("spec.schedule")
    faults.one_of("spec.concurrencyPolicy", job.spec.concurrencyPolicy, ("Allow", "Forbid", "Replace"))
    _validate_job_spec(job.spec.jobTemplate.spec, "spec.jobTemplate.spec", faults)


def validate_fixed_selector(new: Any, old: Any, faults: Faults) -> None:
    """The selector of these kinds never changes: it says which pods are theirs."""
    faults.immutable("spec.selector", new.spec.selector, old.spec.selector)


def validate_nothing_fixed(new: Any, old: Any, faults: Faults) -> None:
    """A ReplicationController may change altogether."""
