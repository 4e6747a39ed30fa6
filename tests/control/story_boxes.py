"""Played boxes for long stories: what is asked of them takes time, is lost with a worker, and outlives it."""

from remote_builders import PlayedNode

#: Seconds until a box has done what it was told, until an agent serves, and until one has restarted.
JOB_S, LOAD_S, BOOT_S = 2, 2, 6


class StoryBox(PlayedNode):
    """A box with units that start at boot, and a queue of work that its lane brings to it.

    One that `is_cut` does as it is told, and its answers are lost.
    """

    def __init__(self, stage, name, **row):
        super().__init__(stage, name, **row)
        self.queue, self.enabled, self.served_from = [], {}, {}
        self.boots, self.back_at, self.is_bare, self.is_cut = 1, 0.0, False, False

    # The lane.

    def submit(self, name, work, *, agent="", on_end=None):
        if any(job[1] == name for job in self.queue):
            return False
        self.queue.append((self.stage.now + JOB_S, name, work, agent))
        return True

    def in_hand(self):
        return frozenset(agent for _, name, _, agent in self.queue if name.startswith("agent:"))

    def problems(self):
        if self.is_bare:
            self.found = ("key_refused",)
        return super().problems()

    # The hands.

    def start(self, agent):
        self.submit(f"agent:{agent}", self._start, agent=agent)

    def stop(self, agent, *, kill=False):
        self.queue = [job for job in self.queue if job[1] != f"agent:{agent}"]
        self.submit(f"stop:{agent}", self._stop, agent=agent)

    def forget(self, agent):
        self.submit(f"forget:{agent}", lambda agent: None, agent=agent)

    # The box.

    def ask(self, verb, **_given):
        """Its steward."""
        if verb == "reboot":
            self.restart()
        if verb == "retire":
            self.alive, self.enabled, self.is_bare, self.away = {}, {}, True, True
        return {"boot_id": self.boot_id}

    def restart(self):
        """As ordered or by itself: units that are enabled run again."""
        self.boots += 1
        self.boot_id, self.away, self.back_at = f"boot-{self.boots}", True, self.stage.now + BOOT_S
        self.alive = {}

    def play(self):
        """A second passes."""
        now = self.stage.now
        if self.back_at and now >= self.back_at and not self.is_bare:
            self.back_at, self.away = 0.0, False
            for agent in self.enabled:
                self.alive[agent], self.served_from[agent] = 2000 + self.boots, now + LOAD_S
        due = [job for job in self.queue if job[0] <= now]
        self.queue = [job for job in self.queue if job not in due]
        for _, name, work, agent in due:
            if self.away:
                self._failed(name, agent)
            elif agent:
                work(agent)
            else:
                if name in ("reboot", "retire"):
                    work(self, self)
                if not self.is_cut:
                    self.ended(name)

    def serving(self):
        """Agents there that answer."""
        now = self.stage.now
        return set() if self.away else {agent for agent in self.alive if self.served_from[agent] <= now}

    def _failed(self, name, agent):
        if name.startswith("agent:"):
            self.failures[agent] = "it cannot be reached"
        elif not agent:
            self.ended(name, "it cannot be reached")

    def _start(self, agent):
        assert agent not in self.alive, f"{agent} is started twice"
        self.alive[agent] = self.enabled[agent] = 1000 + len(self.calls)
        self.served_from[agent] = self.stage.now + LOAD_S

    def _stop(self, agent):
        self.alive.pop(agent, None)
        self.enabled.pop(agent, None)
