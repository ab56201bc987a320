"""The provider simulator: a model service on loopback that speaks OpenAI's and Azure's formats and tells the truth.

It drives the demo, the tests and the chaos rig. It knows nothing of the gateway: no key, limit or price. What it
served, and what that would cost a caller, stands in its own truth log before the last byte of an answer leaves.

How to steer it is told in ``steering`` (the fields), ``faults`` (the names) and ``doors`` (what can be asked).
"""

from faregate.simulator.deadends import BlackHole, Refuser
from faregate.simulator.server import Simulator, run, serve
from faregate.simulator.steering import Script, ScriptInvalid, load_script

__all__ = ["BlackHole", "Refuser", "Script", "ScriptInvalid", "Simulator", "load_script", "run", "serve"]
