"""From award to service: winners reserve, then deploy, all segments or none; who is late loses the deposit."""

from msgspec.structs import replace

from gridpool.contracts.slices.assignments import ASSIGNMENTS, ITEMS
from gridpool.contracts.slices.awards import ConfirmBy, decide_again, undo_awards
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.networks import NETWORKS
from gridpool.contracts.slices.offers import return_deposits, set_status
from gridpool.contracts.slices.orders import (
    ORDERS,
    PROGRESS,
    SLICES,
    SUBSLICES,
    Progress,
    Request,
    Requirement,
    SubSlice,
    enter,
    interval_count,
    note,
    pay,
    sub_slices,
    update,
)
from gridpool.contracts.slices.pools import Segment
from gridpool.contracts.slices.supervision import begin_service
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.types import Call, Due, Event, Hash, Natural

__all__ = ["ConfirmDeployment", "ConfirmReservation", "DeployBy", "Deployed"]


class ConfirmReservation(Call, tag="slices.confirm_reservation"):
    """Say that the resources of an awarded sub-slice are reserved (its party)."""

    slice: Name
    segment: Segment


class ConfirmDeployment(Call, tag="slices.confirm_deployment"):
    """Say that a sub-slice is deployed (its party).

    ``endpoint`` is a hash of where it can be reached and measured; a RAN that was ordered for named nodes names the
    recorded ``assignment`` of its network that carries every one of them over the whole window.
    """

    slice: Name
    segment: Segment
    endpoint: Hash
    assignment: str = ""


class DeployBy(Due, tag="slices.deploy_by"):
    """The winners of a round should have deployed."""

    slice: Name
    generation: Natural
    round: Natural


@slices.event
class Deployed(Event, tag="slices.deployed"):
    """A sub-slice is deployed."""

    slice: Name
    generation: Natural
    segment: str


@slices.call(ConfirmReservation)
def confirm_reservation(ctx: Context, call: ConfirmReservation) -> None:
    """Note a winner's confirmation; with the last one deployment begins."""
    key, progress, sub = _own(ctx, call.slice, call.segment, "awarded")
    ctx.put(SUBSLICES, (*key, call.segment), replace(sub, confirmed=True))
    if not all(one.confirmed for one in sub_slices(ctx, key).values()):
        return
    request = ctx.require(ORDERS, key, "no_order").request
    ctx.unschedule(progress.deadline, ConfirmBy(*key, progress.round))
    until = ctx.now + request.schedule.deploy_ms
    update(ctx, key, deadline=until)
    ctx.schedule(until, DeployBy(*key, progress.round))
    enter(ctx, key, "deploying", "")


@slices.call(ConfirmDeployment)
def confirm_deployment(ctx: Context, call: ConfirmDeployment) -> None:
    """Note a winner's deployment; with the last one service begins."""
    key, progress, sub = _own(ctx, call.slice, call.segment, "deploying")
    request = ctx.require(ORDERS, key, "no_order").request
    requirement = next(one for one in request.segments if one.segment == call.segment)
    if requirement.nodes:
        _check_assignment(ctx, request, requirement, call.assignment)
    elif call.assignment:
        raise Refused("no_nodes_ordered", "no assignment is asked for")
    deployed = replace(sub, deployed=True, endpoint=call.endpoint, assignment=call.assignment)
    ctx.put(SUBSLICES, (*key, call.segment), deployed)
    ctx.emit(Deployed(*key, call.segment))
    if not all(one.deployed for one in sub_slices(ctx, key).values()):
        return
    ctx.unschedule(progress.deadline, DeployBy(*key, progress.round))
    return_deposits(ctx, key)
    subs = sub_slices(ctx, key)
    spare = request.payable - sum(one.payment for one in subs.values())
    pay(ctx, key, progress.tenant, spare, "refunded")
    note(ctx, key, progress.tenant, "budget returned", "", spare)
    late = max(0, ctx.now - request.start)
    first = min(-(-late // request.schedule.interval_ms), interval_count(request))
    update(ctx, key, active_from=first)
    enter(ctx, key, "active", "")
    begin_service(ctx, key)


@slices.due(ConfirmBy)
def confirm_by(ctx: Context, due: ConfirmBy) -> None:
    """Forfeit the deposits of winners that did not confirm and take the next best choice."""
    _replace_late(ctx, (due.slice, due.generation), due.round, "awarded")


@slices.due(DeployBy)
def deploy_by(ctx: Context, due: DeployBy) -> None:
    """Forfeit the deposits of winners that did not deploy, release the others and take the next best choice."""
    _replace_late(ctx, (due.slice, due.generation), due.round, "deploying")


def _replace_late(ctx: Context, key: tuple[str, int], round_: int, phase: str) -> None:
    progress = ctx.require(PROGRESS, key, "no_order")
    if progress.phase != phase or progress.round != round_:
        return
    late = []
    for segment, sub in sub_slices(ctx, key).items():
        if not (sub.confirmed if phase == "awarded" else sub.deployed):
            set_status(ctx, key, segment, sub.offer, "forfeited")
            late.append(segment)
    undo_awards(ctx, key)
    decide_again(ctx, key, f"{', '.join(late)} not {'confirmed' if phase == 'awarded' else 'deployed'} in time")


def _own(ctx: Context, name: str, segment: str, phase: str) -> tuple[tuple[str, int], Progress, SubSlice]:
    record = ctx.require(SLICES, name, "unknown_slice")
    key = (name, record.generation)
    progress = ctx.require(PROGRESS, key, "no_order")
    sub = ctx.require(SUBSLICES, (*key, segment), "unknown_segment")
    if sub.party != ctx.sender:
        raise Refused("not_the_party")
    if progress.phase != phase or ctx.now >= progress.deadline:
        raise Refused("too_late" if progress.phase == phase else "wrong_phase", f"slice {name} is {progress.phase}")
    if sub.confirmed if phase == "awarded" else sub.deployed:
        raise Refused("already_confirmed")
    return key, progress, sub


def _check_assignment(ctx: Context, request: Request, requirement: Requirement, name: str) -> None:
    assignment = ctx.require(ASSIGNMENTS, name, "unknown_assignment") if name else None
    if assignment is None:
        raise Refused("assignment_needed", "the RAN was ordered for named nodes")
    if ctx.require(NETWORKS, assignment.network, "unknown_network").operator != ctx.sender:
        raise Refused("not_the_operator", f"network {assignment.network}")
    if assignment.start > max(request.start, ctx.now) or assignment.end < request.end:
        raise Refused("assignment_too_short", name)
    for node in requirement.nodes:
        if next(ctx.scan(ITEMS, (name, node.node, node.slice)), None) is None:
            raise Refused("node_not_carried", f"{node.node} {node.slice}")
