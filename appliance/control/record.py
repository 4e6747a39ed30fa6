"""Writing a tick's outcome: one transaction, conditional on the lease's fencing number."""

import datetime as dt
from dataclasses import replace

from django.db import transaction
from django.db.models import Max, Q

from appliance.control import lease
from appliance.control.rows import to_time, write_agents
from appliance.models import Agent, Decision, Deployment, Node, Revision
from appliance.policies.actions import DeploymentPlan, Forget, Plan, Remove
from appliance.policies.fleet import DeploymentFacts, FleetSnapshot
from appliance.publish import touch_routes
from appliance.scaling_settings import set_otherwise

#: Decisions kept of each deployment, and of all together: those of deployments that are gone go in the end.
KEPT_DECISIONS, KEPT_OF_ALL = 5000, 1_000_000


def record(held: lease.Held, snapshot: FleetSnapshot, plan: Plan, created: list[Agent], trigger: str) -> None:
    """Write everything that the plan decided. Raises LostLease, with nothing written."""
    with transaction.atomic():
        lease.confirm(held)
        generation = touch_routes().number if plan.routes_changed else None
        write_agents(snapshot.agents, plan.agents, generation)
        _write_created(created)
        Agent.objects.filter(pk__in=[one.agent for one in plan.actions if isinstance(one, Forget)]).delete()
        before = {deployment.name: deployment for deployment in snapshot.deployments}
        for each in plan.deployments:
            was = before[each.name]
            if each.would is not None and each.would != was.decided:
                _write_decision(as_it_would_be(each, was.decided), snapshot.now, trigger, dry_run=True)
            if worth_a_row(each, was.reason_kind):
                _write_decision(each, snapshot.now, trigger)
            _write_deployment(each, was)
            if each.proven and not before[each.name].proven:
                _write_proof(before[each.name].revision, snapshot.now)
        removed = [one.deployment for one in plan.actions if isinstance(one, Remove)]
        Deployment.objects.filter(name__in=removed, removing=True).delete()


def _write_created(created: list[Agent]) -> None:
    """Without those whose node was retired meanwhile: they leave the list, too."""
    nodes = {agent.node_id for agent in created}
    gone = set(Node.objects.filter(pk__in=nodes, retired_at__isnull=False).values_list("pk", flat=True))
    created[:] = [agent for agent in created if agent.node_id not in gone]
    Agent.objects.bulk_create(created)


def worth_a_row(plan: DeploymentPlan, kind_before: str) -> bool:
    """Whether a decision is kept: it changed the number, did something, or has another sort of reason."""
    return plan.desired != plan.before or bool(plan.did) or plan.kind != kind_before


def in_words(plan: DeploymentPlan) -> str:
    """The reason with what is done for it; what is done comes first where the number stays."""
    done = "; ".join(plan.did)
    parts = (done, plan.reason) if plan.desired == plan.before else (plan.reason, done)
    return "; ".join(filter(None, parts))


def as_it_would_be(plan: DeploymentPlan, before: int) -> DeploymentPlan:
    """The plan of a dry run as if it were none: with the numbers that would be, and nothing done."""
    if plan.asked is None or plan.would is None:
        return plan
    answer = plan.asked.answer
    return replace(
        plan, before=before, desired=plan.would, reason=answer.reason, kind=answer.kind, clamps=answer.clamps,
        problem="", did=(),
    )  # fmt: skip


def _write_decision(plan: DeploymentPlan, now: float, trigger: str, *, dry_run: bool = False) -> None:
    inputs: dict[str, object] = dict(plan.inputs)
    asked = plan.asked
    if plan.problem:
        inputs["problem"] = plan.problem[:2000]
    Decision.objects.create(
        at=dt.datetime.fromtimestamp(now, dt.UTC),
        deployment=plan.name,
        trigger=trigger,
        before=plan.before,
        kind=plan.kind,
        want=plan.want,
        after=plan.desired,
        dry_run=dry_run,
        inputs=inputs,
        policy={} if asked is None else set_otherwise(asked.policy),
        gateways=[] if asked is None else [one.process for one in asked.load.gateways],
        clamps=list(plan.clamps),
        reason=in_words(plan),
        actions=list(plan.did),
    )


def prune_decisions(deployment: str, keep: int = KEPT_DECISIONS) -> None:
    """Forget all but the newest decisions on a deployment."""
    mine = Decision.objects.filter(deployment=deployment).order_by("-at", "-id")
    oldest = mine[keep - 1 : keep].first()
    if oldest is not None:
        mine.filter(Q(at__lt=oldest.at) | Q(at=oldest.at, pk__lt=oldest.pk)).delete()


def prune_all_decisions(keep: int = KEPT_OF_ALL) -> None:
    """Forget all but the newest decisions, whatever they are on."""
    newest = Decision.objects.aggregate(newest=Max("pk"))["newest"] or 0
    Decision.objects.filter(pk__lte=newest - keep).delete()


def _write_deployment(plan: DeploymentPlan, was: DeploymentFacts) -> None:
    changes: dict[str, object] = {
        "desired": plan.desired,
        "scaling_state": {} if plan.scaling_state is None else plan.scaling_state.to_json(),
        "problem": plan.problem,
        "removing_at": to_time(plan.removing_at),
    }
    if plan.would != was.would:
        changes["would"] = plan.would
    if plan.desired_rps != was.desired_rps:
        changes["desired_rps"] = plan.desired_rps
    if plan.lacking_since != was.lacking_since:
        changes["lacking_since"] = plan.lacking_since
    if plan.moves != was.moves:
        changes["moves"] = list(plan.moves)
    if plan.desired != plan.before or plan.kind != was.reason_kind or plan.would != was.would:
        changes |= {"reason": plan.reason, "reason_kind": plan.kind}
    Deployment.objects.filter(name=plan.name).update(**changes)


def _write_proof(revision: int | None, now: float) -> None:
    if revision is not None:
        Revision.objects.filter(pk=revision, proven_at__isnull=True).update(proven_at=to_time(now))
