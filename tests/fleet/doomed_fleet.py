"""A test run that will be killed: starts a host, spoils its line, says what it has, and waits.

    doomed_fleet.py LOCKS

Its locks are in a folder of its own, so that no other run cleans up after it.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import fleet_network
from hosts import Fleet

fleet_network.RUN = Path(sys.argv[1])
fleet = Fleet()
host = fleet.start("doomed")
host.spoil_line(delay_ms=1)
print(fleet.network.number, fleet.network.folder, flush=True)
time.sleep(600)
