"""Single flight: of several requests that ask the same at once one is sent, and all get its answer.

Like all of the dispatcher's it runs in the loop's thread and nothing awaits. A follower is counted
as queued until it has its answer.
"""

from collections.abc import Callable

from appliance.gateway.calls import Call, Flight, Outcome, Served

Begin = Callable[[Call], None]
Finish = Callable[[Call, str, Outcome], None]


class Sharing:
    """Answers calls that have a `cache_key` from the cache, or has them follow one under way.

    `begin` is called, soon, with each call that must be sent after all; `finish` with each that
    gets another's answer.
    """

    def __init__(self, begin: Begin, finish: Finish) -> None:
        self._begin = begin
        self._finish = finish

    def join(self, call: Call) -> bool:
        """Whether a new call is answered, or follows another; if not it is to be sent."""
        deployment, key = call.deployment, call.cache_key
        assert key is not None
        found = deployment.cache.get(key)
        if found is not None:
            deployment.stats.cache["hit"] += 1
            self._finish(call, "answered", found)
            return True
        flight = deployment.flights.get(key)
        if flight is None:
            deployment.flights[key] = Flight(call)
        elif _may_follow(call, flight):
            deployment.stats.cache["shared"] += 1
            flight.followers[call] = None
            return True
        deployment.stats.cache["miss"] += 1
        return False

    def settle(self, call: Call, outcome: str, result: Outcome) -> None:
        """A call with a key has ended: its answer is kept and given to those that follow it.

        Where it has none, the first follower is sent in its place.
        """
        deployment, key = call.deployment, call.cache_key
        assert key is not None
        served = result if outcome == "answered" and isinstance(result, Served) else None
        if served is not None and served.answer.status == 200 and call.keep_answer:
            deployment.cache.put(key, served, len(served.answer.body))
        flight = deployment.flights.get(key)
        if flight is None:
            return
        if flight.leader is not call:
            flight.followers.pop(call, None)
            return
        if served is None and flight.followers:
            flight.leader = flight.followers.popitem(last=False)[0]
            self._begin(flight.leader)
            return
        del deployment.flights[key]
        if served is not None:
            for follower in flight.followers:
                follower.cache_key = None  # the answer is kept already
                self._finish(follower, "answered", served)

    def find_heir(self, call: Call) -> Call | None:
        """Who leads a call's flight once it is gone, None where nobody follows it."""
        flight = call.deployment.flights.get(call.cache_key) if call.cache_key is not None else None
        if flight is None or flight.leader is not call or not flight.followers:
            return None
        flight.leader = flight.followers.popitem(last=False)[0]
        return flight.leader


def _may_follow(call: Call, flight: Flight) -> bool:
    """Whether it costs the call nothing: the leader is sent, or would be sent before the call anyway."""
    leader = flight.leader
    if len(flight.followers) >= call.deployment.queue.limit:
        return False
    if leader.reservation is not None:
        return True
    sooner = leader.priority <= call.priority and leader.deadline_at <= call.deadline_at
    return sooner and leader.key == call.key
